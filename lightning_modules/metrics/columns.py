"""How scores are written and which values of them are better; for whoever reads results without measuring."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Column(NamedTuple):
    """How a score is written in tables, and which values of it are better; "" for neither."""

    title: str
    digits: int
    better: Literal["max", "min", ""]


COLUMNS = {
    "psnr": Column("PSNR", 2, "max"),
    "ssim": Column("SSIM", 4, "max"),
    "mse": Column("MSE", 4, "min"),
    "lpips": Column("LPIPS", 4, "min"),
    "lpips_vgg": Column("LPIPS (VGG)", 4, "min"),
    "lpips_random": Column("LPIPS (random net)", 4, "min"),
    "id": Column("ID", 3, "max"),
    "id_random": Column("ID (random net)", 3, "max"),
    "deg": Column("Deg", 2, "min"),
    "idd": Column("IDD", 4, "min"),
    "lmd": Column("LMD", 3, "min"),
    "niqe": Column("NIQE", 3, "min"),
    "colour_shift": Column("colour shift", 2, "min"),
    "sharpness": Column("sharpness", 2, ""),
    "fid": Column("FID", 2, "min"),
    "fid_random": Column("FID (random net)", 4, "min"),
    "miou": Column("mIoU", 4, "max"),
    "pixel_accuracy": Column("pixel accuracy", 4, "max"),
    "locality": Column("locality", 2, "max"),
    "alignment": Column("alignment (IoU)", 3, "max"),
    "fusion_error": Column("error of the fusion", 4, "min"),
    "fid_portraits": Column("FID (portraits)", 3, "min"),
    "fid_reference": Column("FID (reference)", 2, "min"),
    "fid_random_reference": Column("FID (reference, random net)", 4, "min"),
    "kid": Column("KID", 4, "min"),
    "kid_random": Column("KID (random net)", 4, "min"),
    "kid_reference": Column("KID (reference)", 4, "min"),
    "kid_random_reference": Column("KID (reference, random net)", 4, "min"),
}


def direction(name: str) -> Literal["max", "min"] | None:
    """Which values of a logged score are better; None if nobody says.

    The name may be that of a part of the result: `val/psnr`, `val/lpips_random_x_R`.
    """
    score = name.rpartition("/")[2]
    if score.endswith("_input"):  # of the degraded images: the same at every validation
        return None
    if score == "improved":
        return "max"
    known = [column for column in COLUMNS if score == column or score.startswith(f"{column}_")]
    if not known:
        return None
    return COLUMNS[max(known, key=len)].better or None
