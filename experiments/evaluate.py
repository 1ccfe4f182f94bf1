"""Score checkpoints on held-out images, one row each: python -m experiments.evaluate --checkpoint A [B ...].

Without --data and --metrics options checkpoints are scored on the held-out images that they were trained
beside, by what the first run measured; those of other images, or of another kind (restoration, inversion,
priors), get a table of their own. With --data.root DIR_OR_ZIP that was not trained on, all its images are
used. With --faces DIR_OR_ZIP real low-quality faces are restored as they are, and scored by what needs no
truth (--metrics.fid_reference, niqe and others of --metrics.also). Checkpoints of one name in --names are
trainings of one method with several seeds: their row is the mean, with the standard deviation. What cannot be
scored is named and left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from datamodules.datasets import FrozenSet
from datamodules.faces import FaceData
from experiments.shared import console
from experiments.shared.dashboards import add_evaluation_options, check_wandb, send_evaluation
from experiments.shared.devices import load_to_device
from experiments.shared.evaluation import Evaluation, score
from experiments.shared.groups import Group, grouped, values_of
from experiments.shared.options import Parser, add_weights_option, command_parser, parse, use_weights
from experiments.shared.photographs import filter_of
from experiments.shared.protocols import Protocol, data_options, read_protocol
from experiments.shared.released import released_by
from experiments.shared.trained import OWN, left_out_by, trained_on
from lightning_modules import embedded
from lightning_modules.base import Inverter, Method, Restorer
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.methods import find_method
from lightning_modules.metrics.judge import Judge
from lightning_modules.schema import check_options

T = TypeVar("T")
SPLIT = ("val_split", "val_images", "seed")  # options that say which images of a set are held out


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if len(values_of(argv, "--checkpoint")) < 2:
        show(run(argv))
        return 0
    config = parse(options_parser(), argv)
    row_names(config.checkpoint, config.names)  # raises what is wrong with them
    left_out: list[str] = []
    groups = grouped(config.checkpoint, config.names, argv, left_out)
    if len(groups) > 1:
        differ = "these checkpoints differ in what they do or in the images held out"
        print(f"{len(groups)} tables: {differ} (--data options choose others)")
    scored = 0
    for group in groups:
        try:
            evaluation = run(group.argv(argv, output_of(config, group, len(groups))), left_out)
        except UserError as error:
            left_out.append(str(error))
            continue
        scored += 1
        if len(groups) > 1:
            print(f"\n{group.title}:")
        show(evaluation)
    if not scored:
        raise UserError(left_out[0])
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return int(scored < len(groups))


def show(evaluation: Evaluation) -> None:
    print(evaluation.table.text())
    print(f"written to {evaluation.folder}")


def output_of(config: Namespace, group: Group, groups: int) -> str | None:
    """Where the results of a group go: below --output where there are several."""
    if config.output is None or groups == 1:
        return config.output
    return str(Path(config.output) / group.title.replace(", ", "-").replace(" ", "").replace("/", "-"))


def options_parser() -> Parser:
    parser = command_parser("evaluate", __doc__)
    parser.add_argument(
        "--checkpoint", type=str, nargs="+", required=True, help="checkpoints, one row of the table each"
    )
    parser.add_argument(
        "--names",
        type=str,
        nargs="+",
        help="names of the rows; run folders' names if not given; of equal ones the mean",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        help="folder of the results; `evaluation` in the first checkpoint's run folder if not given",
    )
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace results that exist")
    parser.add_argument(
        "--tlc",
        action=ActionYesNo,
        default=False,
        help="test-time local conversion of the methods that have it (NAFNet)",
    )
    parser.add_argument(
        "--allow_trained",
        action=ActionYesNo,
        default=False,
        help="score images too that a checkpoint was trained on; the table says so",
    )
    parser.add_argument(
        "--faces",
        type=str | None,
        help="folder or zip of aligned low-quality faces without a truth (LFW-Test, WebPhoto-Test, ...)",
    )
    protocol_help = "what the figures have to mean: a name (lfw-test, pmrf, ...) or a YAML file of your own"
    parser.add_argument("--protocol", type=str | None, help=protocol_help)
    worst_help = "score by which the images of worst-NAME.png are the worst; LPIPS if measured, or NIQE"
    parser.add_argument("--worst_by", type=str | None, help=worst_help)
    add_weights_option(parser)
    add_evaluation_options(parser)
    parser.add_class_arguments(Judge, "metrics", instantiate=False, skip={"scored"})
    parser.add_class_arguments(FaceData, "data", fail_untyped=False)
    return parser


def run(argv: Sequence[str], left_out: list[str] | None = None) -> Evaluation:
    """One table: score, and write the results.

    Args:
        argv: the command's arguments. The first checkpoint decides about data and metrics where they do not.
        left_out: takes why a checkpoint cannot be scored, which is an error otherwise.
    """
    parser = options_parser()
    trained_with: dict[str, Any] = {}
    paths = values_of(argv, "--checkpoint")
    if paths:
        first = read_checkpoint(paths[0])
        trained_with = first.get("datamodule_hyper_parameters", fitting(first))  # an imported one saw no data
        measured = first.get("callbacks", {}).get("Metrics", {})
        name = f"checkpoint {paths[0]}"
        check_options(FaceData, trained_with, f"{name} has options of data that do not fit")
        check_options(Judge, measured, f"{name} has metrics that do not fit", skip=frozenset({"scored"}))
        parser.set_defaults({f"data.{name}": value for name, value in trained_with.items()})
        parser.set_defaults({f"metrics.{name}": value for name, value in measured.items()})
    protocol = protocol_in(argv)
    fixed = {} if protocol is None else protocol.defaults(argv)
    parser.set_defaults(fixed)
    config = parse(parser, argv)
    check_wandb(config)
    use_weights(config)
    options = config.data.as_dict()
    if config.faces is None:
        choose_place(options, trained_with, argv)
    else:
        choose_faces(options, config.faces, argv)

    options |= data_options(fixed)
    rows = dict(zip(row_names(config.checkpoint, config.names), config.checkpoint, strict=True))
    if not config.allow_trained:
        each(rows, lambda path: check_held_out(path, options), left_out)
    folder = Path(config.output) if config.output else run_of(Path(config.checkpoint[0])) / "evaluation"
    if (folder / "results.json").exists() and not config.overwrite:
        raise UserError(f"{folder} holds results already: give --overwrite or another --output DIR")
    data = FaceData(**options)
    if protocol is not None:
        data.setup("test")
        protocol.check(data)
    loaded = each(rows, lambda path: load_scored(path, data, config.tlc), left_out)
    notes = each(rows, lambda path: check_images(path, data, config.allow_trained), left_out)
    methods = [loaded[name] for name in rows]
    check_alike(list(rows.values()), methods, config.tlc)
    if config.faces is not None and not isinstance(methods[0], Restorer):
        what = f"{type(methods[0]).__name__} does not restore"
        raise UserError(f"--faces {config.faces}: {what}; evaluate restorers")
    seen = [f"{name} {note}" for name, note in notes.items() if note is not None]
    released: list[str] = []
    for path in rows.values():
        released += released_by(read_checkpoint(path))
    how: dict[str, Any] = {"truth": config.faces is None, "worst_by": config.worst_by, "under": protocol}
    how["released"] = released
    evaluation = score(rows, methods, data, config.metrics.as_dict(), folder, seen, **how)
    if config.wandb != "off":
        runs = [
            (run_of(Path(path)), method.iteration)
            for path, method in zip(rows.values(), methods, strict=True)
        ]
        send_evaluation(config, evaluation, runs)
    return evaluation


def protocol_in(argv: Sequence[str]) -> Protocol | None:
    """The protocol that is asked for."""
    names = values_of(argv, "--protocol")
    return read_protocol(names[-1]) if names else None


def choose_place(options: dict[str, Any], trained: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Let what --data.root or --data.pairs names be scored, whole where it is not what was trained on.

    Raises:
        UserError: both are given.
    """
    given = [name for name in ("root", "pairs") if values_of(argv, f"--data.{name}")]
    given = [name for name in given if options[name] is not None]
    if len(given) == 2:
        raise UserError("--data.root and --data.pairs both name what to score: give one of them")
    for name in ("root", "pairs"):
        if given and name not in given:
            options[name] = None
    for name in given:
        if not same_place(options[name], trained.get(name)):
            score_all(options, name, argv)


def choose_faces(options: dict[str, Any], faces: str, argv: Sequence[str]) -> None:
    """Let real faces be restored as they are, all of them.

    Raises:
        UserError: another option names images or a degradation too, or the faces are a test set with truth.
    """
    for name in ("root", "pairs", "val_root", "degradation"):
        if values_of(argv, f"--data.{name}"):
            raise UserError(f"--faces {faces} are restored as they are: leave out --data.{name}")
    if not Path(faces).exists():
        raise UserError(f"--faces {faces}: no such folder or zip file")
    if FrozenSet.at(faces):
        raise UserError(f"--faces {faces} is a test set with its truth: give --data.val_root {faces}")
    options |= {"root": None, "pairs": None, "degradation": "none", "val_root": faces}
    score_all(options, "val_root", argv)


def score_all(options: dict[str, Any], place: str, argv: Sequence[str]) -> None:
    """Let the images that an option names be scored, all of them where `argv` does not say otherwise."""
    options[place], options["val_root"] = None, options[place]
    for name, value in (("val_images", sys.maxsize), ("val_split", "random")):
        if not any(argument.startswith(f"--data.{name}") for argument in argv):
            options[name] = value


def each(rows: dict[str, str], work: Callable[[str], T], left_out: list[str] | None) -> dict[str, T]:
    """What `work` makes of every checkpoint, by its row.

    Rows that it refuses are removed and told; they are an error where `left_out` is None.

    Raises:
        UserError: no row is left, too.
    """
    done: dict[str, T] = {}
    for name, path in list(rows.items()):
        try:
            done[name] = work(path)
        except UserError as error:
            if left_out is None or len(rows) == 1:
                raise
            left_out.append(str(error))
            del rows[name]
    return done


def fitting(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Options of data that a method takes."""
    own = checkpoint["hyper_parameters"]
    options = {name: own[name] for name in ("size", "height") if name in own}
    if issubclass(find_method(checkpoint["suite"]["method"]), Inverter):
        options |= {"degradation": "none", "filter": filter_of(checkpoint)}
    return options


def same_place(a: str | None, b: str | None) -> bool:
    if a is None or b is None:
        return a is b
    return Path(a).expanduser().resolve() == Path(b).expanduser().resolve()


def check_held_out(checkpoint: str, options: dict[str, Any]) -> None:
    """Raise `UserError` where a checkpoint was trained on images it would be scored on."""
    trained = read_checkpoint(checkpoint).get("datamodule_hyper_parameters", {"root": None})
    scored = options["val_root"] or options["root"]
    if trained["root"] is None or not same_place(scored, trained["root"]):
        return
    held_out = options["val_root"] is None and trained["val_root"] is None
    if not (held_out and all(options[name] == trained[name] for name in SPLIT)):
        choice = " ".join(f"--data.{name} {trained[name]}" for name in SPLIT)
        what = f"{checkpoint} was trained on images of {trained['root']}"
        raise UserError(f"{what}: score it on other images, or on those it left out ({choice})")


def check_images(checkpoint: str, data: FaceData, allowed: bool) -> str | None:
    """Compare the images to be scored with those that a checkpoint and its parts were trained on.

    Its own held-out images are scored though a copy of one may have been trained on, which the run has told.

    Returns:
        Words about the former among the latter, where they are `allowed`; None where there are none.

    Raises:
        UserError: there are some.
    """
    read, what = read_checkpoint(checkpoint), f"checkpoint {checkpoint}"
    scored = data.held_out()
    if scored is None:
        return None
    left_out = left_out_by(read, what)
    for part, seen in trained_on(read, what).items():
        known = seen.holds(scored)
        if part == OWN and left_out is not None:
            known &= ~left_out.holds(scored)
        if not known.any():
            continue
        found = (
            f"was trained on images of {seen.source}: {int(known.sum())} of the {len(scored)} to be scored"
        )
        if not seen.whole:
            found += f" at least (of its {len(seen):,} images {len(seen.looks):,} are known by their looks)"
        if part != OWN:
            found = f"(its {part}) {found}"
        if allowed:
            return found
        example = data.val_names[int(known.int().argmax())]
        ways = "on those it left out (--data.val_split FILE names them), or with --allow_trained"
        raise UserError(f"{checkpoint} {found}, e.g. {example}; score it on other images, {ways}")
    return None


def load_scored(path: str, data: FaceData, tlc: bool) -> Method:
    """The method, which works at the size of the data. Raises `UserError` where it does not."""
    method = load_to_device(path, tlc=True) if tlc else load_to_device(path)
    if not method.scored:
        what = f"the images of {type(method).__name__} cannot be scored"
        raise UserError(f"{path}: {what}; evaluate restorers or priors")
    if getattr(method, "any_size", False):
        return method
    size, rows = data.hparams["size"], data.shape[0]
    if method.size != size:
        raise UserError(f"{path} works at {method.size} px, the data at {size}: set --data.size")
    if method.image_shape[0] != rows:
        own = method.image_shape[0]
        raise UserError(f"{path} takes images of {own} rows, the data have {rows}: set --data.height")
    return method


def check_alike(paths: Sequence[str], methods: Sequence[Method], tlc: bool) -> None:
    """Raise `UserError` where methods are not scored alike, or none has what was asked for."""
    first = methods[0]
    for path, method in zip(paths, methods, strict=True):
        if method.scored != first.scored:
            what = f"the images of {type(method).__name__} cannot be scored beside {type(first).__name__}"
            raise UserError(f"{path}: {what}; evaluate restorers or priors")
    if tlc and not any("tlc" in method.hparams for method in methods):
        raise UserError("--tlc: none of the checkpoints is of a method that has it (nafnet)")


def row_names(checkpoints: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """A name for each checkpoint, all different: those of one row are numbered (`split_seed`)."""
    if names is None:
        return unique([row_name(Path(path)) for path in checkpoints])
    if {"input", "target"} & set(names) or any("/" in name or "#" in name for name in names):
        given = " ".join(names)
        raise UserError(f"--names {given}: expected names other than input and target, without / and #")
    if len(names) != len(checkpoints):
        raise UserError(f"--names gives {len(names)} names for {len(checkpoints)} checkpoints")
    numbered = []
    for i, name in enumerate(names):
        seed = names[:i].count(name) + 1
        numbered.append(f"{name} #{seed}" if names.count(name) > 1 else name)
    return numbered


def run_of(checkpoint: Path) -> Path:
    """The run folder a checkpoint lies in, or the folder of a checkpoint that lies elsewhere."""
    if embedded.is_name(checkpoint):  # in no folder of the user's
        return Path("runs") / embedded.full_name(checkpoint).replace("/", "-")
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def row_name(checkpoint: Path) -> str:
    return run_of(checkpoint).name if checkpoint.parent.name == "checkpoints" else checkpoint.stem


def unique(names: list[str]) -> list[str]:
    """Tell equal names apart by a number; `input` and `target` are taken."""
    seen = ["input", "target"]
    for name in names:
        number = 2
        fresh = name
        while fresh in seen:
            fresh, number = f"{name}-{number}", number + 1
        seen.append(fresh)
    return seen[2:]


if __name__ == "__main__":
    console.run(main)
