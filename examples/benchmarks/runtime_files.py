"""The files of an exported model for other runtimes: what `runtimes.py` compares.

The exported graph takes images of any size, in loops over blocks. The converters of LiteRT and ONNX
refuse it, and OpenVINO's answers are empty. `for_size` makes the same graph for images of one size.
"""

REFERENCE = "saved_model"
LITERT = {"litert": "model.tflite", "litert_8bit": "model_dynamic_range.tflite"}


def write(runtime, folder):
    """Writes the file of a runtime; returns its path.

    Args:
        runtime: its name.
        folder: with what `write_graphs` wrote, beside the SavedModel `REFERENCE`.
    """
    if runtime in (REFERENCE, "openvino_saved_model"):
        return folder.parent / REFERENCE
    if runtime in ("frozen", "frozen_for_size"):
        return folder / f"{runtime}.pb"
    if runtime in ("openvino", "openvino_bfloat16"):
        return to_openvino(folder)
    if runtime == "onnxruntime":
        return to_onnx(folder)
    path = folder / LITERT.get(runtime, LITERT["litert"])
    return path if path.exists() else to_litert(folder, path)


def write_graphs(signature, shape, folder):
    """Writes the frozen graphs for any size and for one, the latter also as a SavedModel.

    Args:
        signature: `serving_default` of the model.
        shape: `(B, H, W, C)`; height and width are the model's own.
        folder: to make.
    """
    import tensorflow as tf

    folder.mkdir()
    any_size = frozen(signature, [None, None, None, shape[-1]], lower_control_flow=True)
    (folder / "frozen.pb").write_bytes(any_size.SerializeToString())
    graph = for_size(frozen(signature, shape, lower_control_flow=False))
    (folder / "frozen_for_size.pb").write_bytes(graph.SerializeToString())
    signatures = {"serving_default": as_function(graph)}
    tf.saved_model.save(tf.Module(), str(folder / "for_size"), signatures)


def frozen(signature, shape, lower_control_flow):
    """Returns the graph of score and map, whose weights are constants.

    Its input is `images:0`; `Identity:0` is the score and `Identity_1:0` the map.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    def call(images):
        predictions = signature(images=images)
        return [predictions["score"], predictions["map"]]

    form = tf.TensorSpec(shape, tf.uint8, name="images")
    function = tf.function(call, [form], autograph=False).get_concrete_function()
    constant = convert_to_constants.convert_variables_to_constants_v2(
        function, lower_control_flow=lower_control_flow
    )
    return constant.graph.as_graph_def()


def for_size(graph):
    """Returns a frozen graph for one size: without loops, and without shapes to compute.

    It holds for images of the model's own size, which are one block: each loop over blocks has one
    round, and nothing is resized.
    """
    for nodes in (graph.node, *(each.node_def for each in graph.library.function)):
        for node in nodes:
            simplify(node)
    graph = optimized(graph, ["function"])  # what the loops called is part of the graph now
    unpack_lists(graph)
    return optimized(graph, ["constfold", "shape", "dependency", "arithmetic", "constfold"])


def simplify(node):
    """Replaces a loop by its body, and what hides the size of an image or resizes it by nothing."""
    if node.op in ("While", "StatelessWhile"):
        body, types = node.attr["body"].func.name, list(node.attr["T"].list.type)
        node.op = "PartitionedCall"
        node.ClearField("attr")
        node.attr["f"].func.name = body
        node.attr["Tin"].list.type.extend(types)
        node.attr["Tout"].list.type.extend(types)
    elif node.op == "PlaceholderWithDefault":
        replace_by_input(node, node.input[0], node.attr["dtype"].type)
    elif node.op == "ScaleAndTranslate":
        replace_by_input(node, node.input[0], node.attr["T"].type)
    node.attr.pop("_output_shapes", None)


def replace_by_input(node, name, dtype):
    """Replaces a node by the input of a name."""
    node.op = "Identity"
    del node.input[:]
    node.input.append(name)
    node.ClearField("attr")
    node.attr["T"].type = dtype


def unpack_lists(graph):
    """Replaces lists of tensors by their one item, in place."""
    import tensorflow as tf

    by_name = {node.name: node for node in graph.node}
    for node in graph.node:
        if node.op != "TensorListConcatV2":
            continue
        source = node
        while source.op != "TensorListSetItem":
            source = by_name[source.input[0].partition(":")[0]]
        replace_by_input(node, source.input[2], tf.float32.as_datatype_enum)


def optimized(graph, optimizers):
    """Returns a graph after some of grappler's optimizers, and without unused nodes."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer

    config = config_pb2.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    rewrites.min_graph_nodes = -1
    rewrites.meta_optimizer_iterations = rewrites.ONE
    rewrites.optimizers.extend(optimizers)
    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(graph, name="")
    meta = tf.compat.v1.train.export_meta_graph(graph_def=whole.as_graph_def(), graph=whole)
    kept = meta_graph_pb2.CollectionDef()
    kept.node_list.value.extend(["images:0", "Identity:0", "Identity_1:0"])
    meta.collection_def["train_op"].CopyFrom(kept)
    return tf_optimizer.OptimizeGraph(config, meta)


def as_function(graph):
    """Returns a frozen graph as a function of images, which returns score and map by name."""
    import tensorflow as tf

    whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    images, score, anomaly_map = (
        whole.graph.get_tensor_by_name(name) for name in ("images:0", "Identity:0", "Identity_1:0")
    )
    return whole.prune(images, {"score": score, "map": anomaly_map})


def to_litert(folder, path):
    """Writes LiteRT's file of the SavedModel for one size, with the options of tfgad's export."""
    import tensorflow as tf

    from tfgad.export.litert import VARIANTS
    from tfgad.quiet import silent_standard_error

    form = str(folder / "for_size")
    with silent_standard_error():
        converter = tf.lite.TFLiteConverter.from_saved_model(form, ["serving_default"])
        converter.optimizations = VARIANTS[path.name]
        path.write_bytes(converter.convert())
    return path


def to_openvino(folder):
    """Writes OpenVINO's own two files of the SavedModel for one size; returns their folder."""
    import openvino

    path = folder / "openvino"
    if not path.exists():
        model = openvino.Core().read_model(folder / "for_size")
        openvino.save_model(model, path / "model.xml", compress_to_fp16=False)
    return path


def to_onnx(folder):
    """Writes the ONNX file of the frozen graph for one size."""
    import tensorflow as tf
    import tf2onnx

    path = folder / "model.onnx"
    graph = tf.compat.v1.GraphDef.FromString((folder / "frozen_for_size.pb").read_bytes())
    names = {"input_names": ["images:0"], "output_names": ["Identity:0", "Identity_1:0"]}
    tf2onnx.convert.from_graph_def(graph, **names, opset=18, output_path=str(path))
    return path
