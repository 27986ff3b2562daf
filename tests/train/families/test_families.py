"""Each family trains, draws and is written as diffusers' and transformers' own classes do it; tiny models, in fp32."""

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamloom.base.progress import silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample import draw_images
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.lora_files import KOHYA_FILE, PEFT_FILE, PEFT_FOLDER, save_adapters, to_kohya_keys
from dreamloom.train.export.writers import Export, write_diffusers, write_single_file
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.sd3.configs import TRANSFORMER
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.init_lora import load_adapters
from dreamloom.train.model.lora import adapter_state_dict, add_adapters, merge_adapters
from dreamloom.train.model.lora_layers import count_adapter_parameters, is_adapter
from dreamloom.train.model.model import Model
from dreamloom.train.model.weight_files import read_component_shapes
from tests.train.conftest import CPU, MakeTrainer
from tests.train.tiny_families import FAMILIES

Bases = Callable[[str], str]
CAPTIONS = ["a thing", "", "a caption that is far too long for the encoders to see all of it"]
TRAINED = {"learning_rate": 1e-4, "text_encoder_learning_rate": 1e-5, "min_snr_gamma": None, "max_train_steps": 10}
each_family = pytest.mark.parametrize("family", FAMILIES)


def left_out(base: str) -> dict[str, None]:
    """What diffusers wants to be told that a model lacks."""
    index = json.loads((Path(base) / "model_index.json").read_text())
    lacking = [name for name, value in index.items() if value == [None, None]]
    return dict.fromkeys(name for name in lacking if name in ("text_encoder_3", "tokenizer_3"))


def open_pipeline(base: str) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(base, **left_out(base))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encode(pipeline: Any, captions: list[str]) -> tuple[Tensor, ...]:
    """What the pipeline makes of captions: states, and what sums them up."""
    with torch.no_grad():
        more = {"prompt_2": captions, "prompt_3": captions} if hasattr(pipeline, "transformer") else {}
        encoded = pipeline.encode_prompt(
            prompt=captions, device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False, **more
        )
    return tuple(value for value in encoded if value is not None)


# Text


@each_family
def test_text_is_what_the_pipeline_makes_of_it(family: str, bases: Bases) -> None:
    model, pipeline = load_model(bases(family), CPU), open_pipeline(bases(family))
    with torch.no_grad():
        condition = model.encode(model.tokenize(CAPTIONS))
    ours = [value for value in (condition.states, condition.pooled) if value is not None]
    theirs = encode(pipeline, CAPTIONS)
    assert len(ours) == len(theirs) and all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


# Loss, gradients and steps


class Reference:
    """The steps of diffusers' training scripts, written with its classes.

    They are train_text_to_image.py, train_text_to_image_sdxl.py and train_dreambooth_sd3.py (precondition_outputs 0).
    """

    def __init__(self, base: str, config: TrainConfig) -> None:
        self.pipeline = open_pipeline(base)
        self.is_flow = hasattr(self.pipeline, "transformer")
        self.scheduler = diffusers.DDPMScheduler.from_config(self.pipeline.scheduler.config)
        parts = ("unet", "transformer", "text_encoder", "text_encoder_2")
        names = [name for name in parts if hasattr(self.pipeline, name)]
        modules = {name: getattr(self.pipeline, name).eval().requires_grad_(True) for name in names}
        # as the model's own: AdamW makes whole steps of gradients that are next to nothing but rounding
        self.modules = {name: module.to(memory_format=torch.channels_last) for name, module in modules.items()}
        rates = dict.fromkeys(("unet", "transformer"), config.learning_rate)
        groups = [
            {"params": list(module.parameters()), "lr": rates.get(name, config.text_encoder_learning_rate)}
            for name, module in self.modules.items()
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    def loss(self, batch: LoadedBatch, latents: Tensor, added: Tensor, timesteps: Tensor) -> Tensor:
        return (self.errors(batch, latents, added, timesteps) ** 2).mean()

    def errors(self, batch: LoadedBatch, latents: Tensor, added: Tensor, timesteps: Tensor) -> Tensor:
        if self.is_flow:
            sigmas = (timesteps / 1000)[:, None, None, None]
            noisy = ((1.0 - sigmas) * latents + sigmas * added).contiguous(memory_format=torch.channels_last)
            network = self.modules["transformer"]
            predicted = network(hidden_states=noisy, timestep=timesteps, **self.condition(batch)).sample
            return torch.as_tensor(predicted - (added - latents))
        noisy = self.scheduler.add_noise(latents, added, timesteps).contiguous(memory_format=torch.channels_last)
        predicted = self.modules["unet"](noisy, timesteps, **self.condition(batch)).sample
        return torch.as_tensor(predicted - added)

    def condition(self, batch: LoadedBatch) -> dict[str, Any]:
        tokens = {name: part["tokens"] for name, part in batch.text.encoders.items() if "tokens" in part}
        if "text_encoder_2" not in tokens:
            return {"encoder_hidden_states": self.modules["text_encoder"](tokens["text_encoder"])[0]}
        outputs = [self.modules[name](ids, output_hidden_states=True) for name, ids in tokens.items()]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        if self.is_flow:
            length, width = 256, self.pipeline.transformer.config.joint_attention_dim
            answers = batch.text.encoders.get("text_encoder_3")
            t5 = answers["states"].float() if answers else torch.zeros(len(states), length, width)
            states = torch.cat([F.pad(states, (0, width - states.shape[-1])), t5], dim=-2)
            pooled = torch.cat([output[0] for output in outputs], dim=-1)
            return {"encoder_hidden_states": states, "pooled_projections": pooled}
        added = {"text_embeds": outputs[1][0], "time_ids": batch.sizes}
        return {"encoder_hidden_states": states, "added_cond_kwargs": added}

    def step(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)
        parameters = [p for module in self.modules.values() for p in module.parameters() if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def inputs(trainer: Trainer, batch: LoadedBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The latents, the noise and the timesteps of a batch, as the trainer has them."""
    mean, deviation = batch.posteriors.float().unbind(1)
    drawn = noise.normal(trainer.posterior_stream, batch.indices, tuple(mean.shape[1:]))
    latents = trainer.model.scale_latents(mean + deviation * drawn)
    added = noise.normal(trainer.noise_process.streams["noise"], batch.indices, tuple(mean.shape[1:]))
    return latents, added, trainer.noise_process.add_noise(latents, batch.indices).timesteps


@each_family
def test_ten_steps_are_those_of_diffusers_scripts(family: str, bases: Bases, make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer(base=bases(family), **TRAINED)
    reference = Reference(bases(family), trainer.config)
    for number, batch in enumerate(batches[:10]):
        loss = reference.loss(batch, *inputs(trainer, batch))
        ours = trainer.loss(batch) / len(batch.indices)
        assert ours.item() == pytest.approx(loss.item(), rel=1e-5), number
        if number == 0:
            gradients = torch.autograd.grad(ours, trainer.parameters)
            parameters = {f"{n}.{k}": p for n, m in reference.modules.items() for k, p in m.named_parameters()}
            named = [parameters[name] for name in trainer.parameter_names()]
            wanted = torch.autograd.grad(loss, named, retain_graph=True)
            assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(gradients, wanted, strict=True))
        reference.step(loss * len(batch.indices) / trainer.step_size)  # a step of the run has room for more images
        trainer.step([batch])
    assert trainer.num_steps == 10
    weights = {f"{n}.{k}": v for n, m in reference.modules.items() for k, v in m.state_dict().items()}
    for name, parameter in zip(trainer.parameter_names(), trainer.parameters, strict=True):
        assert torch.allclose(parameter, weights[name], atol=1e-5), name


# Samples


@each_family
@pytest.mark.parametrize("negative", ["", "blurry"])
def test_samples_are_what_the_pipeline_draws(family: str, negative: str, bases: Bases, config: Any) -> None:
    model, pipeline = load_model(bases(family), CPU), open_pipeline(bases(family))
    key = (stream_key(5, "samples"), 0)
    drawing = Drawing("a red thing", negative, (32, 40), 3, 4.0, None, key, "")
    (ours,) = draw_images(model, [drawing], config(), silent, "")
    latents = noise.normal(key[0], torch.tensor([0]), (model.denoiser.config.in_channels, 10, 8))
    theirs = pipeline(
        "a red thing", negative_prompt=negative or None, width=32, height=40, num_inference_steps=3, guidance_scale=4,
        latents=latents, generator=torch.Generator().manual_seed(stream_key(*key) >> 1),
    ).images[0]  # fmt: skip
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@each_family
def test_text_encoders_that_rest_answer_as_the_others(family: str, bases: Bases, config: Any) -> None:
    awake = load_model(bases(family), CPU)
    resting = load_model(bases(family), CPU, at_rest=True)
    names = set(resting.text_encoders)
    assert resting.resting == names and not awake.resting
    resting.settle(names)
    drawing = Drawing("a thing", "blurry", (32, 32), 1, 4.0, None, (5, 0), "")
    images = [np.asarray(draw_images(model, [drawing], config(), silent, "")[0]) for model in (awake, resting)]
    assert np.array_equal(images[0], images[1]) and resting.resting == names
    for name in names:
        with resting.awake(name):
            assert resting.resting == names - {name}
    resting.settle()
    assert not resting.resting


# Files


def same(ours: Any, theirs: Any) -> bool:
    left, right = ours.state_dict(), theirs.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@each_family
def test_folder_and_single_file_are_one_model(family: str, bases: Bases, tmp_path: Path) -> None:
    model = load_model(bases(family), CPU)
    export = Export(model, ExportConfig(dtype="fp32"), {})
    assert not write_diffusers(export, tmp_path) and not write_single_file(export, tmp_path)
    file = str(tmp_path / "model.safetensors")
    again = load_model(file, CPU)
    theirs = getattr(diffusers, model.family.pipeline).from_single_file(
        file, config=str(tmp_path), local_files_only=True, **left_out(str(tmp_path))
    )
    folder = open_pipeline(str(tmp_path))
    for name, module in model.components.items():
        assert all(same(module, other) for other in (again.components[name], getattr(theirs, name))), name
        assert same(module, getattr(folder, name)), name
    assert again.settings == model.settings
    for encoder in model.text_encoders:
        assert torch.equal(again.tokens_for(encoder, CAPTIONS), model.tokens_for(encoder, CAPTIONS))


def adapted(base: str, config: Any, **settings: Any) -> tuple[Model, TrainConfig]:
    """A model with adapters of random numbers."""
    given = config(base=base, lora_rank=2, lora_alpha=4, text_encoder_learning_rate=1e-4, **settings)
    model = load_model(base, CPU)
    add_adapters(model, given)
    generator = torch.Generator().manual_seed(0)
    for module in model.components.values():
        for name, parameter in module.named_parameters():
            if is_adapter(name):
                parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model, given


def read_by_others(pipeline: Any, folder: Path, file: str, parts: Iterable[str]) -> None:
    """Merges adapters into a pipeline with diffusers or peft."""
    if file != PEFT_FOLDER:
        pipeline.load_lora_weights(str(folder), weight_name=file)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        return
    for part in parts:
        adapted = peft.PeftModel.from_pretrained(getattr(pipeline, part), folder / file / part)
        setattr(pipeline, part, adapted.merge_and_unload())


KINDS_AND_FAMILIES = [
    *(("lora", False, family) for family in FAMILIES),
    ("lora", True, "sd"),
    ("dora", True, "sdxl"),
    ("dora", False, "sd3"),
    ("loha", False, "sd3"),
    ("loha", True, "sdxl"),
    ("lokr", False, "sd3"),
    ("lokr", True, "sd"),
]


@pytest.mark.parametrize(("kind", "convolutions", "family"), KINDS_AND_FAMILIES)
def test_adapters_are_read_by_others_and_by_ourselves(
    kind: str, convolutions: bool, family: str, bases: Bases, tmp_path: Path, config: Any
) -> None:
    model, settings = adapted(bases(family), config, lora_kind=kind, lora_convolutions=convolutions)
    adapters = {name: value.clone() for name, value in adapter_state_dict(model).items()}
    parts = model.family.adapter_layers
    assert sum(value.numel() for value in adapters.values()) == sum(
        count_adapter_parameters(settings, model.family, part, read_component_shapes(bases(family), part))
        for part in parts
    )
    save_adapters(model, adapters, settings, tmp_path, torch.float32, {})
    theirs = open_pipeline(bases(family))
    before = {name: copy.deepcopy(getattr(theirs, name).state_dict()) for name in parts}
    merge_adapters(model)
    own = PEFT_FILE if kind in ("lora", "dora") else PEFT_FOLDER
    for file in (KOHYA_FILE, own):
        if file != PEFT_FOLDER:
            ours = load_model(bases(family), CPU)
            started = settings.model_copy(update={"init_lora": tmp_path / file})
            add_adapters(ours, started)
            load_adapters(ours, started)
            read = adapter_state_dict(ours)
            assert read.keys() == adapters.keys()
            assert all(torch.allclose(read[name], adapters[name]) for name in adapters)
        if file == KOHYA_FILE and (kind != "lora" or family.startswith("sd3")):
            continue  # which diffusers does not read
        read_by_others(theirs, tmp_path, file, parts)
        for name in parts:
            merged, fused = model.components[name].state_dict(), getattr(theirs, name).state_dict()
            assert all(torch.allclose(merged[key], fused[key], atol=1e-5) for key in merged), (file, name)
            assert any(not torch.equal(fused[key], before[name][key]) for key in fused)
            getattr(theirs, name).load_state_dict(before[name])


def test_an_adapter_of_sd3_stands_where_stabilitys_names_have_it(bases: Bases, config: Any) -> None:
    """As ComfyUI and kohya's scripts read it: query, key and value are one layer."""
    model, settings = adapted(bases("sd3"), config)
    weights = {name: value.clone() for name, value in adapter_state_dict(model).items()}
    before = load_model(bases("sd3"), CPU).original_weights()
    file = to_kohya_keys(model, weights, settings)
    merge_adapters(model)
    after = model.original_weights()
    denoiser = {name for name in file if name.startswith("lora_unet_") and name.endswith(".lora_up.weight")}
    changed = {name for name in after if name.startswith(TRANSFORMER) and not torch.equal(after[name], before[name])}
    names = {
        f"lora_unet_{name.removeprefix(TRANSFORMER).removesuffix('.weight').replace('.', '_')}": name
        for name in changed
    }
    assert {name.removesuffix(".lora_up.weight") for name in denoiser} == names.keys()
    for layer, name in names.items():
        down, up = (file[f"{layer}.{side}.weight"] for side in ("lora_down", "lora_up"))
        delta = up @ down * (file[f"{layer}.alpha"] / len(down))
        assert torch.allclose(before[name] + delta, after[name], atol=1e-5), name


# The house


def test_no_family_is_named_where_all_are_trained() -> None:
    root = Path(__file__).parents[3] / "train"
    rooms = ("loop", "data", "evaluate", "objectives", "run", "audit", "optimizers")
    files = [file for room in rooms for file in (root / room).rglob("*.py")]
    words = (
        "sdxl",
        "sd3",
        "SD3",
        "StableDiffusion",
        "families.sd",
        "CLIPText",
        "T5",
        '"unet"',
        '"transformer"',
        ".unet.",
    )
    wrong = [f"{file.name}: {word}" for file in files for word in words if word in file.read_text("utf-8")]
    assert files and not wrong
