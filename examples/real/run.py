"""Runs the whole chain on real images without a network: python examples/real/run.py DATA.

DATA is a folder with laion/laion2b-en-sample.parquet, coco/, ffhq/, subjects/rc_car/, taesd/ and clip_tokenizer/. Its
files are copied into examples/real/world/, and none is changed. A web server on this machine serves the COCO photos
under the URLs of the LAION rows. Then `dreamloom run examples/real/project.yaml` runs, and diffusers opens the exported
model and generates an image.

The UNet and the text encoder start from random weights: the twenty steps test the chain, not the quality of images.
"""

import argparse
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.files.atomic import commit, commit_folder, copy

HERE = Path(__file__).parent
WORLD = HERE / "world"
PORT = 8979
"""Fixed, as the URLs in the index contain it, and an image's key is made from its URL."""


def main() -> int:
    """Makes the world, serves it, runs the chain, and opens the result.

    Returns:
        The chain's exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of real data")
    data = parser.parse_args().data.resolve()
    copy_images(data)
    point_index_here(data / "laion" / "laion2b-en-sample.parquet")
    make_base_model(data)
    server = serve(photos(data))
    try:
        dreamloom = Path(sys.executable).with_name("dreamloom")
        code = subprocess.run([dreamloom, "run", HERE / "project.yaml"]).returncode
    finally:
        server.shutdown()
    if code == 0:
        open_and_draw()
    return code


def copy_images(data: Path) -> None:
    """Copies the user's images, FFHQ in its own layout, and COCO."""
    for image in (data / "subjects" / "rc_car").iterdir():
        _copy(image, WORLD / "rc_car" / image.name)
    for face in (data / "ffhq").glob("*.png"):
        _copy(face, WORLD / "ffhq" / "images1024x1024" / "00000" / face.name)
    _copy(data / "ffhq" / "ffhq-dataset-v2.image0.readme-excerpt.json", WORLD / "ffhq" / "ffhq-dataset-v2.json")
    for photo in (data / "coco" / "images").glob("*.jpg"):
        _copy(photo, WORLD / "coco" / "images" / photo.name)
    _copy(data / "coco" / "annotations" / "captions_sample.json", WORLD / "coco" / "captions_sample.json")


def _copy(source: Path, target: Path) -> None:
    with commit(target, sync=False) as temporary:
        copy(source, temporary)


def point_index_here(sample: Path) -> None:
    """Writes the LAION rows with URLs of this machine."""
    rows = pq.read_table(sample)
    urls = pa.array([f"http://127.0.0.1:{PORT}/{row}.jpg" for row in range(len(rows))])
    with commit(WORLD / "laion.parquet") as temporary:
        pq.write_table(rows.set_column(rows.schema.get_field_index("URL"), "URL", urls), temporary)


def photos(data: Path) -> list[bytes]:
    """Returns the COCO photos that the captions file does not name, so that the two sources share none, by name."""
    named = {i["file_name"] for i in json.loads((WORLD / "coco" / "captions_sample.json").read_text())["images"]}
    return [p.read_bytes() for p in sorted((data / "coco" / "images").glob("*.jpg")) if p.name not in named]


def serve(images: list[bytes]) -> ThreadingHTTPServer:
    """Serves the image of each row. Every third row is gone, as on the web; the others repeat the photos."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            row = self.path.strip("/").removesuffix(".jpg")
            if not row.isdigit() or int(row) % 3 == 0:
                self.send_error(404)
                return
            body = images[int(row) % len(images)]
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def make_base_model(data: Path) -> None:
    """Writes a Stable Diffusion folder with the real TAESD and tokenizer, and a tiny random UNet and text encoder."""
    if (WORLD / "base" / "model_index.json").exists():
        return
    import torch
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(data / "clip_tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(data / "taesd" / "taesd_diffusers_fp16", torch_dtype=torch.float32),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with commit_folder(WORLD / "base") as temporary:
        pipeline.save_pretrained(temporary)


def open_and_draw() -> None:
    """Opens the exported model with diffusers alone, and generates an image with it."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(WORLD / "work" / "model", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    result = pipeline("a remote controlled car", height=256, width=256, num_inference_steps=10, generator=generator)
    result.images[0].save(WORLD / "work" / "drawn.png")
    print(f"diffusers opened {WORLD / 'work' / 'model'} and drew {WORLD / 'work' / 'drawn.png'}")


if __name__ == "__main__":
    sys.exit(main())
