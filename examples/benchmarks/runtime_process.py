"""One runtime, measured in this process: what `runtimes.py` runs for each measurement."""

import statistics
import time

import numpy as np
from runtime_files import LITERT, REFERENCE, as_function

BATCHES = 1, 32
SECONDS = 2.0  # of a measurement, at least one call


def measured(runtime, work, threads):
    """Returns the time to the first answer, the scores of all tiles, and tiles per second."""
    tiles, many = np.load(work / "tiles.npy"), max(BATCHES)
    start, predict = timed(lambda: started(runtime, work, threads, tiles[:1]))
    rates = {"1": rate(predict, tiles[:1])}
    predict = LOAD[runtime](runtime, work, many, threads)
    parts = np.split(tiles, range(many, len(tiles), many))
    scores = np.concatenate([predict(part) for part in parts])
    rates[str(many)] = rate(predict, parts[0])
    return {"start": start, "scores": scores.tolist(), "rates": rates}


def started(runtime, work, threads, tile):
    """Returns a runtime that has scored one tile."""
    predict = LOAD[runtime](runtime, work, 1, threads)
    predict(tile)
    return predict


def timed(work):
    """Returns the time and the processor time of some work, in seconds, and its result."""
    clocks = {"time": time.perf_counter, "processor_time": time.process_time}
    before = {name: clock() for name, clock in clocks.items()}
    result = work()
    return {name: clock() - before[name] for name, clock in clocks.items()}, result


def rate(predict, tiles):
    """Returns tiles per second of time and of processor time, by the median of some calls."""
    calls, end = [], time.perf_counter() + SECONDS
    while not calls or time.perf_counter() < end:
        calls.append(timed(lambda: predict(tiles))[0])
    names = calls[0]
    return {name: len(tiles) / statistics.median(each[name] for each in calls) for name in names}


def of_tensorflow(runtime, work, batch, threads):
    """Returns a function of tiles that scores them with TensorFlow."""
    import tensorflow as tf

    if batch == 1:  # later TensorFlow refuses it
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if runtime == REFERENCE:
        model = tf.saved_model.load(str(work / REFERENCE))
        function = model.signatures["serving_default"]
    else:
        model, content = None, (work / str(batch) / f"{runtime}.pb").read_bytes()
        function = as_function(tf.compat.v1.GraphDef.FromString(content))

    def predict(tiles, owner=model):  # the model owns the weights
        predictions = function(images=tf.constant(tiles))
        predictions["map"].numpy()
        return predictions["score"].numpy()

    return predict


def of_litert(runtime, work, batch, threads):
    """Returns a function of tiles that scores them with LiteRT, which uses XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    path = str(work / str(batch) / LITERT[runtime])
    interpreter = Interpreter(path, num_threads=threads)
    predict = interpreter.get_signature_runner("serving_default")
    return lambda tiles: predict(images=tiles)["score"]


def of_openvino(runtime, work, batch, threads):
    """Returns a function of tiles that scores them with OpenVINO."""
    import openvino

    path = {
        "openvino_saved_model": work / REFERENCE,
        "openvino_litert": work / str(batch) / LITERT["litert"],
    }.get(runtime, work / str(batch) / "openvino" / "model.xml")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if runtime == "openvino_bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(path, "CPU", settings)
    request = model.create_infer_request()
    score = score_of(model.outputs)
    return lambda tiles: np.array(request.infer({0: tiles})[score])


def score_of(outputs):
    """Returns the index of OpenVINO's output of scores: by its name, or the one of one axis."""
    named = [i for i, each in enumerate(outputs) if "score" in each.get_names()]
    return (named or [i for i, each in enumerate(outputs) if len(each.partial_shape) == 1])[0]


def of_onnxruntime(runtime, work, batch, threads):
    """Returns a function of tiles that scores them with ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    path = str(work / str(batch) / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = ["Identity:0", "Identity_1:0"]
    return lambda tiles: session.run(names, {"images:0": tiles})[0]


LOAD = {
    REFERENCE: of_tensorflow,
    "frozen": of_tensorflow,
    "frozen_for_size": of_tensorflow,
    "litert": of_litert,
    "litert_8bit": of_litert,
    "openvino": of_openvino,
    "openvino_bfloat16": of_openvino,
    "openvino_litert": of_openvino,
    "openvino_saved_model": of_openvino,
    "onnxruntime": of_onnxruntime,
}
