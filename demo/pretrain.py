"""Trains the demo's models from scratch, in about two hours on two cores: `python -m dreamloom.demo.pretrain`.

A killed run is continued from a checkpoint of its last minute. Checkpoints and a loss curve per model are in --work.
`--measure` prints how good the models in --out are.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.progress import Progress

MODELS = Path(__file__).parent / "models"
ORDER = ("vae", "unet", "clip", "blip")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dreamloom.demo.pretrain", description="Trains the demo's models from scratch."
    )
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of the models (default: demo/models)")
    parser.add_argument("--work", type=Path, default=Path("work/pretrain"), help="folder of checkpoints and curves")
    parser.add_argument("--only", choices=ORDER, help="train one model; unet needs the vae")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--measure", action="store_true", help="train nothing; print how good the models in --out are")
    given = parser.parse_args(arguments)
    keep_freed_memory()  # before torch is imported
    if given.measure:
        print_measures(given.out)
        return
    pretrain(given.out, given.work, [given.only] if given.only else ORDER, given.seed, _show())


def pretrain(out: Path, work: Path, only: Sequence[str], seed: int, progress: Progress) -> None:
    """Trains the named models into `out`, continuing from checkpoints in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path, Path, int, Progress], None]] = {
        "vae": make_vae_part,
        "unet": make_diffusion_part,
        "clip": make_clip_part,
        "blip": make_blip_part,
    }
    for name in only:
        makers[name](out, work, seed, progress)
    draw_curves(work)


def make_vae_part(out: Path, work: Path, seed: int, progress: Progress) -> None:
    """Trains the VAE and writes it to `work`, for the UNet."""
    from dreamloom.demo.pretrain_vae import make_vae, train_vae

    vae = make_vae(seed)
    train_vae(vae, work, seed, progress=progress)
    vae.save_pretrained(work / "vae")


def make_diffusion_part(out: Path, work: Path, seed: int, progress: Progress) -> None:
    """Trains UNet and text encoder on the VAE's latents, and writes the pipeline."""
    from diffusers import AutoencoderKL

    from dreamloom.demo.pretrain_diffusion import export_pipeline, make_text_encoder, make_unet, train_diffusion
    from dreamloom.demo.pretrain_loop import device

    vae = AutoencoderKL.from_pretrained(work / "vae").to(device())
    vae.register_to_config(_name_or_path=None)  # else the pipeline would contain a path of this machine
    unet, text_encoder = make_unet(seed), make_text_encoder(seed)
    train_diffusion(unet, text_encoder, vae, work, seed, progress=progress)
    export_pipeline(vae, unet, text_encoder, out / "stable-diffusion")


def make_clip_part(out: Path, work: Path, seed: int, progress: Progress) -> None:
    """Trains the CLIP, fits the aesthetic head over it, and writes both."""
    from dreamloom.demo.pretrain_clip import export_clip, export_head, fit_head, make_clip, train_clip

    clip = make_clip(seed)
    train_clip(clip, work, seed, progress=progress)
    export_clip(clip, out / "clip")
    export_head(*fit_head(clip, seed), out / "aesthetic_head.safetensors")


def make_blip_part(out: Path, work: Path, seed: int, progress: Progress) -> None:
    """Trains the BLIP and writes it with its processor."""
    from dreamloom.demo.pretrain_blip import export_blip, make_blip, train_blip

    blip = make_blip(seed)
    train_blip(blip, work, seed, progress=progress)
    export_blip(blip, out / "blip")


def draw_curves(work: Path) -> None:
    """Draws all loss curves in `work` into one image, curves.png."""
    import numpy as np
    from matplotlib.figure import Figure

    curves = {path.stem: np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2) for path in sorted(work.glob("*.csv"))}
    figure = Figure(figsize=(4 * max(1, len(curves)), 3), layout="constrained")
    for number, (name, rows) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(1, len(curves), number)
        axes.semilogy(rows[:, 0], rows[:, 1], linewidth=1)
        axes.set(title=name, xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
    figure.savefig(work / "curves.png", dpi=80)


def print_measures(out: Path) -> None:
    """Prints the table of demo/models/README.md."""
    from dreamloom.demo.pretrain_measure import measure

    print("| measured | |\n| --- | --- |")
    for label, value in measure(out):
        print(f"| {label} | {value:.3f} |", flush=True)


def _show() -> Progress:
    started = time.monotonic()

    def show(done: int, total: int | None, note: str = "") -> None:
        print(f"{(time.monotonic() - started) / 60:6.1f} min  {done}/{total}  {note}", flush=True)

    return show


if __name__ == "__main__":
    main()
