"""Data sets whose folders are not all faces to train on: which are taken, and what is said of the rest.

Known are FFHQ's download, CelebAMask-HQ's, the folders of GFP-GAN's inputs and results, and pairs of degraded
and clean pictures in folders side by side.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from _runtime import UserError
from datamodules.decode import ImageFiles, UnreadableImage

NAMED = 4  # folders that are described one by one
GLANCES = 8  # headers read in each of them

BESIDE = {  # folder of faces -> beginnings of the names of folders beside it that hold no more faces
    "images1024x1024": ("thumbnails128x128", "in-the-wild-images"),
    "celeba-hq-img": ("celebamask-hq-mask",),
    "cropped_faces": ("whole_imgs", "restored_faces", "restored_imgs", "cmp"),
}
SIDES = {  # folder of degraded pictures -> folders that may hold the clean ones
    "input": ("target", "gt", "groundtruth", "ground_truth"),
    "inputs": ("targets",),
    "blur": ("sharp",),
    "blur_gamma": ("sharp",),
    "blurry": ("sharp",),
    "degraded": ("clean",),
    "lq": ("gt", "hq"),
    "lr": ("hr", "gt"),
    "low": ("high",),
    "noisy": ("clean", "gt"),
}
TRAINING = ("train", "training")
TESTING = ("test", "testing", "val", "valid", "validation")


@dataclass(frozen=True)
class Pair:
    """Names of a degraded picture and of the clean one."""

    input: str
    target: str

    @property
    def part(self) -> str:
        """`train`, `test` or nothing, as a folder above says."""
        for folder in folders_of(self.target):
            if folder in TRAINING:
                return "train"
            if folder in TESTING:
                return "test"
        return ""


def without_others(files: ImageFiles) -> tuple[ImageFiles, list[str]]:
    """The files that are faces to train on, and a line about each kind of folder that is left out.

    Raises:
        UserError: they are pairs.
    """
    folders = {folder for place in places_of(files.names) for folder in folders_of(f"{place}/name")}
    sides = sides_of(files.names)
    if sides is not None:
        what = f"{files.option} {files.root} holds pairs of pictures (folders {sides[0]}/ and {sides[1]}/)"
        raise UserError(f"{what}: give --data.pairs {files.root}, or the folder of the clean ones alone")
    kept, lines = files.names, []
    for faces, beginnings in BESIDE.items():
        if faces not in folders:
            continue
        for beginning in beginnings:
            others = {name: _folder_like(name, beginning) for name in kept}
            kept = [name for name in kept if others[name] is None]
            counts = Counter(folder for folder in others.values() if folder is not None)
            lines += [f"{folder}/: {n:,} images left out" for folder, n in counts.items()]
    return files.only(kept), lines


def sides_of(names: Iterable[str]) -> tuple[str, str] | None:
    """The folders of degraded and of clean pictures that stand beside each other, if there are such."""
    inside: dict[str, set[str]] = {}
    for place in places_of(names):
        parts = PurePosixPath(place).parts
        for depth, folder in enumerate(parts):
            inside.setdefault("/".join(parts[:depth]), set()).add(folder.lower())
    for children in inside.values():
        for degraded, others in SIDES.items():
            for clean in others:
                if degraded in children and clean in children:
                    return degraded, clean
    return None


def is_paired(files: ImageFiles) -> bool:
    return sides_of(files.names) is not None


def paired(files: ImageFiles) -> tuple[ImageFiles, ImageFiles, list[str]]:
    """The clean pictures to train on and to score, with the degraded ones as `inputs`, and lines to be said.

    The two are one where the folders do not part them as train/ and test/. Raises UserError for no pairs.
    """
    pairs, alone = pairs_of(files)
    parts = {name: [pair for pair in pairs if pair.part == name] for name in ("train", "test")}
    lines = [f"{alone:,} images without a partner left out"] if alone else []
    if not all(parts.values()):
        whole = _with_inputs(files, pairs)
        return whole, whole, lines
    training = [pair for pair in pairs if pair.part != "test"]
    return _with_inputs(files, training), _with_inputs(files, parts["test"]), lines


def _with_inputs(files: ImageFiles, pairs: Sequence[Pair]) -> ImageFiles:
    targets = files.only(pair.target for pair in pairs)
    targets.inputs = files.only(pair.input for pair in pairs)
    return targets


def pairs_of(files: ImageFiles) -> tuple[list[Pair], int]:
    """Pairs, in the order of the clean pictures, and how many files have no partner.

    Partners differ in the name of one folder, and in the suffix.

    Raises:
        UserError: there is no pair.
    """
    by_path = {_key(name): name for name in files.names}
    pairs = []
    for target in files.names:
        degraded = _partner(target, by_path)
        if degraded is not None:
            pairs.append(Pair(degraded, target))
    if not pairs:
        known = ", ".join(f"{name}/{others[0]}" for name, others in list(SIDES.items())[:3])
        what = f"{files.option} {files.root}: no pairs inside"
        raise UserError(f"{what} (files of one name in two folders called {known}, lq/gt or lq/hq)")
    used = {name for pair in pairs for name in (pair.input, pair.target)}
    return pairs, len(files.names) - len(used)


def _partner(target: str, by_path: dict[str, str]) -> str | None:
    """The degraded picture of a clean one."""
    parts = PurePosixPath(target).parts
    for depth, folder in enumerate(parts[:-1]):
        for degraded, others in SIDES.items():
            if folder.lower() not in others:
                continue
            found = by_path.get(_key("/".join([*parts[:depth], degraded, *parts[depth + 1 :]])))
            if found is not None:
                return found
    return None


def _key(name: str) -> str:
    """A path without its suffix, in small letters."""
    return os.path.splitext(name)[0].lower()


def describe_folders(files: ImageFiles, indices: Sequence[int]) -> list[str]:
    """A line for each of the first few folders, and one for the rest: how many images of which sizes."""
    groups: dict[str, list[int]] = {}
    common = os.path.commonpath([f"/{place}" for place in places_of(files.names)])
    shown: dict[str, str] = {}  # place -> the folder that is told
    for i in indices:
        place = place_of(files.names[i])
        if place not in shown:
            below = PurePosixPath("/", place).relative_to(common).parts
            shown[place] = f"{PurePosixPath(common, *below[:1]).relative_to('/')}/"
        groups.setdefault(shown[place], []).append(i)
    lines = [f"{name}: {len(own):,} images {sizes(files, own)}" for name, own in list(groups.items())[:NAMED]]
    rest = list(groups.values())[NAMED:]
    if rest:
        together = [i for own in rest for i in own]
        lines.append(f"{len(rest)} more folders: {len(together):,} images {sizes(files, together)}")
    return lines


def sizes(files: ImageFiles, indices: Sequence[int]) -> str:
    """Words for the sizes of images, from the headers of some."""
    seen = []
    step = -(-len(indices) // GLANCES)
    for i in indices[::step]:
        try:
            seen.append(files.size(i))
        except UnreadableImage:
            continue  # counted when its turn comes
    if not seen:
        return "of unknown size"
    low, high = np.min(seen, axis=0), np.max(seen, axis=0)
    smallest = f"of {low[0]}x{low[1]}"
    if (low == high).all():
        return f"{smallest} pixels"
    return f"{smallest} to {high[0]}x{high[1]} pixels"


def repeated_names(files: ImageFiles) -> str | None:
    """Words about names that stand in more than one folder; None where there are none."""
    if len(places_of(files.names)) == 1:
        return None
    first: dict[str, str] = {}
    repeated: dict[str, str] = {}
    for name in files.names:
        path = PurePosixPath(name)
        folder = first.setdefault(path.stem, str(path.parent))
        if folder != str(path.parent):
            repeated.setdefault(path.stem, f"{folder}/ and {path.parent}/")
    if not repeated:
        return None
    stem, where = next(iter(repeated.items()))
    example = f"e.g. {stem} in {where}"
    return f"{len(repeated):,} names stand in more than one folder of {files.root} ({example}): all are taken"


def place_of(name: str) -> str:
    """The folder that a file lies in, empty for the root; of millions of names, so as strings."""
    return name.rpartition("/")[0]


def places_of(names: Iterable[str]) -> dict[str, None]:
    """All folders that files lie in, each once, in the order of the files."""
    return dict.fromkeys(map(place_of, names))


def folders_of(name: str) -> list[str]:
    """The folders of a path, in small letters."""
    return [part.lower() for part in PurePosixPath(name).parts[:-1]]


def _folder_like(name: str, beginning: str) -> str | None:
    """The folder of a path whose name begins so, in small letters; None where there is none."""
    for folder in PurePosixPath(name).parts[:-1]:
        if folder.lower().startswith(beginning):
            return folder
    return None
