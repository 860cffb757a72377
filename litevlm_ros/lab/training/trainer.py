"""The training loop of the demo model. It can be resumed, and never waits for the processes that draw its scenes."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from litevlm_ros.checksums import rewriting
from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.files import replacing
from litevlm_ros.lab.charts import draw_training
from litevlm_ros.lab.training.demo_model import DemoModel, demo_config
from litevlm_ros.lab.training.packing import IGNORED, Vocabulary
from litevlm_ros.lab.training.samples import FreshScenes, Sample, SampleBuffer, sample
from litevlm_ros.lab.training.tokenizer import save_tokenizer, train_tokenizer
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.lab.world.splits import FIRST_VALIDATION_SEED, demo_model_seed
from litevlm_ros.model_directory import PARTS, TEXT
from litevlm_ros.text.tokenizer import TextTokenizer

_LOSSES = ("answers", "grid")
_SHARES = ("short_answers", "captions", "unseen_short_answers", "unseen_captions")
_COLUMNS = ("step", "seconds", *_LOSSES, *_SHARES)
"""Columns of the log. The shares stay empty where they were not measured."""

_FRESH_BATCHES = 0.75
"""Batches of new scenes per step, at most."""
_GRID_WEIGHT = 0.5
_WARM_UP_STEPS = 400
_LOG_EVERY, _VALIDATE_EVERY = 100, 500


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run."""

    output: Path
    """Model directory to write."""
    work: Path
    """Directory of the checkpoint, the log and the loss curve."""
    steps: int
    scenes: int
    """Scenes (of six views) per step."""
    buffer: int
    """Scenes kept on the device for reuse."""
    warm_buffer: int
    """Scenes to wait for before the first step."""
    learning_rate: float
    workers: int
    """Processes that draw scenes."""
    time_limit: float
    """Seconds after which to save and stop."""
    seed: int
    device: str
    """'cuda' or 'cpu'; empty for cuda where there is one."""
    compile: bool
    validation_scenes: int = 64


class Training:
    """One training run, with its model, optimizer and log."""

    def __init__(self, config: TrainingConfig) -> None:
        """Builds the model, and continues from the checkpoint in `config.work` if there is one."""
        self.config = config
        self.device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        torch.set_float32_matmul_precision("high")
        self.tokenizer = train_tokenizer()
        image_token = TextTokenizer(self.tokenizer).special("<IMG_CONTEXT>")
        self.model = DemoModel(demo_config(self.tokenizer.get_vocab_size(), image_token)).to(self.device)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        self.step = self.scenes_drawn = 0
        self.log: list[dict[str, float]] = []
        self._checkpoint = config.work / "checkpoint.pt"
        if self._checkpoint.exists():
            self._restore()

    def run(self) -> bool:
        """Trains until all steps are done (returns True) or the time limit is reached (returns False), and saves."""
        config, began = self.config, time.monotonic()
        fresh = FreshScenes(self.tokenizer, demo_model_seed(config.seed, self.scenes_drawn), config.workers)
        buffer = SampleBuffer(config.buffer, self.device)
        loss_of = torch.compile(_loss) if config.compile else _loss
        generator = torch.Generator().manual_seed(config.seed + self.step)
        while buffer.filled < config.warm_buffer:
            buffer.add(fresh.take())
        print(
            f"{buffer.filled} scenes after {time.monotonic() - began:.0f} s; starting at step {self.step}", flush=True
        )
        validation = self._validation_samples()
        due = 0.0
        while self.step < config.steps and time.monotonic() - began < config.time_limit:
            due += _FRESH_BATCHES
            while due >= 1 and fresh.ready:
                buffer.add(fresh.take())
                due -= 1
            self._set_learning_rate()
            with torch.autocast(self.device, torch.bfloat16):
                answers, grid = loss_of(self.model, buffer.draw(config.scenes, generator))
            self.optimizer.zero_grad(set_to_none=True)
            (answers + _GRID_WEIGHT * grid).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            last = self.step == config.steps
            if self.step % _LOG_EVERY == 0 or last:
                row = {"step": self.step, "seconds": round(time.monotonic() - began, 1)}
                row |= {"answers": answers.item(), "grid": grid.item()}
                if self.step % _VALIDATE_EVERY == 0 or last:
                    row |= self._validate(validation)
                self.log.append(row)
                print(" ".join(f"{k} {v:.4g}" for k, v in row.items()), f"scenes {buffer.written}", flush=True)
        fresh.close()
        self.scenes_drawn += buffer.written
        self._save()
        return self.step >= config.steps

    def _set_learning_rate(self) -> None:
        warm = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        decay = 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * warm * (0.02 + 0.98 * decay)

    def _validation_samples(self) -> dict[str, list[Sample]]:
        words = Vocabulary.of(self.tokenizer)
        samples: dict[str, list[Sample]] = {"": [], "unseen_": []}
        for number in range(self.config.validation_scenes):
            seed, unseen = FIRST_VALIDATION_SEED + number, number % 2 == 1
            scene = generate(seed, unseen=unseen)
            rng = np.random.default_rng(seed)
            samples["unseen_" if unseen else ""].append(sample(scene, words, rng, unseen=unseen))
        return samples

    @torch.no_grad()
    def _validate(self, validation: dict[str, list[Sample]]) -> dict[str, float]:
        """Returns the shares of short answers and of captions whose every token is the model's first choice."""
        shares = {}
        for name, samples in validation.items():
            right, total = {True: 0, False: 0}, {True: 0, False: 0}
            for begin in range(0, len(samples), 8):
                batch = default_collate(samples[begin : begin + 8])
                batch = {k: v.to(self.device) for k, v in batch.items()}
                batch |= {k: batch[k][:, 0] for k in ("single", "multi", "order")}
                with torch.autocast(self.device, torch.bfloat16):
                    one, many, _ = _forward(self.model, batch, augment=False)
                for logits, rows in ((one, batch["single"].flatten(0, 1)), (many, batch["multi"])):
                    targets, segment = rows[:, 1].long(), rows[:, 2]
                    wrong = (logits.argmax(-1) != targets) & (targets != IGNORED)
                    for number in range(1, int(segment.max()) + 1):
                        inside = segment == number
                        there = inside.any(1)
                        is_caption = number == 1
                        total[is_caption] += int(there.sum())
                        right[is_caption] += int((there & ~(wrong & inside).any(1)).sum())
            shares[f"{name}short_answers"] = right[False] / total[False]
            shares[f"{name}captions"] = right[True] / total[True]
        return shares

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "scenes_drawn": self.scenes_drawn,
            "log": self.log,
        }
        with replacing(self._checkpoint) as unfinished:
            torch.save(state, unfinished)
        self.config.output.mkdir(parents=True, exist_ok=True)
        with rewriting(self.config.output, *PARTS):
            self.model.save(self.config.output)
            save_tokenizer(self.tokenizer, self.config.output / TEXT)
        with (self.config.work / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(self.log)
        draw_training(self.log, _LOSSES, _SHARES, self.config.work / "loss_curve.png")

    def _restore(self) -> None:
        state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.scenes_drawn, self.log = state["step"], state["scenes_drawn"], state["log"]


def _forward(model: DemoModel, batch: Sample, augment: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns logits of single-view packs [b * 6, s, v] and of multi-view packs [b, s, v], and the grid loss."""
    pixels = batch["pixels"].flatten(0, 1).permute(0, 3, 1, 2).float()
    if augment:
        gain = 1 + 0.12 * torch.randn(len(pixels), 3, 1, 1, device=pixels.device)
        noise = torch.randn_like(pixels) * torch.rand(len(pixels), 1, 1, 1, device=pixels.device) * 8
        pixels = (pixels * gain + noise).clamp(0, 255)
    visual = model.see(pixels)
    grid = model.grid_loss(visual, batch["labels"].flatten(0, 1).long())
    single = batch["single"].flatten(0, 1).long()
    one = model.read(single[:, 0], single[:, 2], single[:, 3], visual)
    multi, order = batch["multi"].long(), batch["order"].long()
    views = visual.unflatten(0, (len(batch["pixels"]), len(DEMO_CAMERAS)))
    ordered = views.gather(1, order[:, :, None, None].expand_as(views)).flatten(1, 2)
    many = model.read(multi[:, 0], multi[:, 2], multi[:, 3], ordered)
    return one, many, grid


def _loss(model: DemoModel, batch: Sample) -> tuple[Tensor, Tensor]:
    """Returns the loss of the answers, a mean over single-view and multi-view packs, and the grid loss."""
    one, many, grid = _forward(model, batch, augment=True)
    answers = model.answer_loss(one, batch["single"].flatten(0, 1)[:, 1].long())
    answers = answers + model.answer_loss(many, batch["multi"][:, 1].long())
    return answers / 2, grid
