"""MLServer: its V2 REST server in one process, a custom runtime, adaptive batching (1 ms)."""

from __future__ import annotations

import asyncio

import computing
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    async def load(self) -> bool:
        self.session = computing.make_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        output = self.session.run([computing.OUTPUT], feeds)[0]
        encoded = NumpyCodec.encode_output(computing.OUTPUT, output)
        return InferenceResponse(model_name=self.name, outputs=[encoded])


async def main() -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=computing.PORT,
        grpc_port=computing.WORK["grpc_port"],
        metrics_port=computing.WORK["metrics_port"],
        parallel_workers=0,
        debug=False,
    )
    model = ModelSettings(
        name=computing.WORK["name"],
        implementation=Model,
        parameters=ModelParameters(version="1"),
        max_batch_size=computing.MAX_BATCH_SIZE,
        max_batch_time=0.001,
    )
    server = MLServer(settings)
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(main())
