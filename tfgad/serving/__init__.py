"""Exported models behind TensorFlow Serving's REST and gRPC interface, on one machine.

`tfgad.serving.client` is a client of TF Serving and of this server; `tfgad.serving.app` is the
server that `tfgad serve` starts. The interface is that of TF Serving 2: its paths, bodies, status
codes and messages (https://www.tensorflow.org/tfx/serving/api_rest,
`tensorflow_serving/util/json_tensor.cc`, `tensorflow_serving/model_servers/http_server.cc`).
"""
