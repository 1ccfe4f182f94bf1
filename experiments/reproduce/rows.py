"""The rows of a table as data, and the one way in which they become trainings.

A table is a module of this package, whose docstring says what it shows; it is listed in `__main__.TABLES`.
It has three functions:

- `add_arguments(parser)`: its options beside the common ones;
- `rows(config)`: checks them, and lists what is trained, each row after those it starts from;
- `report(config, trained)`: scores the `Trainings`, then prints and writes the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jsonargparse import Namespace

from experiments.reproduce.stages import Stage, Takes
from lightning_modules.methods import METHODS

SCORER = "scorer"


@dataclass(frozen=True)
class From:
    """Stands among a row's options for what an earlier row left.

    Attributes:
        title: that row's; of several with this title the one just before. `SCORER` is there too.
        option: the option of its method whose value is meant (`style_dim`); if empty, its checkpoint.
    """

    title: str
    option: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table, or a training that others start from.

    Attributes:
        title: what the table calls it.
        method: the method trained. A row whose method is not here yet has its published figures alone.
        family: the kind of method, where a table tells kinds apart.
        published: column -> the paper's figure.
        options: command-line options on top of the method's recipe and the preset.
        share: its part of the training images that each row sees; None for the recipe's own length.
        takes: which checkpoint the table and later rows take.
        step: what tells it from other rows of its title, of which the table shows the last: ", stage 1".
    """

    title: str
    method: str
    family: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    options: Sequence[str | From] = ()
    share: float | None = 1.0
    takes: Takes = "best"
    step: str = ""

    def after(self, options: Iterable[str | From]) -> Row:
        """The same row with further options before its own."""
        return replace(self, options=(*options, *self.options))


@dataclass(frozen=True)
class Trainings:
    """What the rows of a table became.

    Attributes:
        scorer: measures `fid_portraits`: one for all seeds, or they would be measured by different rules.
            None where nothing needs it.
        seeds: for each seed, title -> its stages, of which the table shows the last.
    """

    scorer: Stage | None
    seeds: Sequence[Mapping[str, Sequence[Stage]]]

    @property
    def stages(self) -> list[Stage]:
        """All of them, each after those it starts from."""
        every = [] if self.scorer is None else [self.scorer]
        for steps in self.seeds:
            for stages in steps.values():
                every += stages
        return every

    def checkpoints(self, title: str, root: Path) -> list[Path]:
        """What a row of the table is scored by, for every seed."""
        return [steps[title][-1].checkpoint(root) for steps in self.seeds]


def train_rows(rows: Sequence[Row], config: Namespace) -> Trainings:
    """The trainings of a table, resolved once for all that is asked of them.

    Args:
        rows: what is trained, each after those it starts from.
        config: the command's options; `images`, where the table has it, is what a row of share 1 sees.
    """
    scorer = None
    if scored_by_portraits(config):
        scorer = Stage(SCORER, SCORER, config.preset, ["--seed", "0"])
    seeds = []
    for seed in config.seeds:
        steps: dict[str, list[Stage]] = {}
        for row in rows:
            if row.method in METHODS:
                stage = stage_of(row, config, seed, steps, scorer)
                steps.setdefault(row.title, []).append(stage)
        seeds.append(steps)
    return Trainings(scorer, seeds)


def scored_by_portraits(config: Namespace) -> bool:
    """Whether the scorer chooses the best prior.

    It does on portraits, and where the preset measures FID by a stand-in only.
    """
    return config.data.root is None or config.preset in ("smoke", "demo", "laboratory")


def stage_of(
    row: Row, config: Namespace, seed: int, earlier: Mapping[str, Sequence[Stage]], scorer: Stage | None
) -> Stage:
    """The training of one row, which starts from `earlier` ones."""
    options: list[str | Stage] = ["--seed", str(seed)]
    for option in row.options:
        if isinstance(option, str):
            options.append(option)
            continue
        source = scorer if option.title == SCORER else earlier[option.title][-1]
        assert source is not None
        options.append(str(source.resolved["model"][option.option]) if option.option else source)
    if config.data.root is not None:
        options += ["--data.root", config.data.root]
    stage = Stage(f"{row.title}{row.step}, seed {seed}", row.method, config.preset, options, row.takes)
    images = config.get("images")
    if images is None or row.share is None:
        return stage
    return stage.seeing(row.share * images)


def scoring(
    config: Namespace, checkpoints: Sequence[tuple[str, Path]], scorer: Stage | None, folder: Path
) -> list[str]:
    """Options of `experiments.evaluate` for a table.

    Args:
        config: the command's options.
        checkpoints: (row's name, checkpoint); those of one name are one row.
        scorer: what measures `fid_portraits`; None leaves it out.
        folder: where the results are written.
    """
    paths = [str(path) for _, path in checkpoints]
    names = [name for name, _ in checkpoints]
    reader = "null" if scorer is None else str(scorer.checkpoint(Path(config.runs)))
    return [
        *("--checkpoint", *paths, "--names", *names, "--metrics.scorer", reader),
        *("--output", str(folder), "--overwrite", *config.dashboard),
    ]
