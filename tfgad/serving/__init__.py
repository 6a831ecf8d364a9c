"""Exported models behind TensorFlow Serving's REST and gRPC interface, on one machine.

`tfgad.serving.client` talks to TF Serving and to this server alike; `tfgad.serving.server` is what
`tfgad serve` starts. The interface is that of TF Serving 2: its paths, bodies, status codes and
messages (https://www.tensorflow.org/tfx/serving/api_rest, `tensorflow_serving/util/json_tensor.cc`,
`tensorflow_serving/model_servers/http_server.cc`).
"""
