"""LitServe: FastAPI in front, one worker process, its own batching (1 ms).

It reads requests as JSON or forms only: tensors come as base64 inside JSON.
"""

from __future__ import annotations

import base64

import computing
import litserve
from starlette.responses import Response


class Model(litserve.LitAPI):
    def setup(self, device) -> None:
        self.session = computing.make_session()

    def decode_request(self, request):
        if computing.IS_JSON:
            return computing.decode_json(request)
        return computing.decode(base64.b64decode(request["b64"]))

    def batch(self, inputs):
        return inputs

    def predict(self, rows):
        if isinstance(rows, tuple):
            return computing.run(self.session, [rows])[0]
        return computing.run(self.session, rows)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        if computing.IS_JSON:
            return computing.encode_json(output)
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = Model(max_batch_size=computing.MAX_BATCH_SIZE, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1", port=computing.PORT, log_level="warning", generate_client_file=False
    )
