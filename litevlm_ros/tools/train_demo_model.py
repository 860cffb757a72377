"""Train the demo model on the procedural street world.

Seeded and resumable: a run that reaches --time-limit saves a checkpoint, and the same command goes on from it. Needs
the packages of the `train` extra, and in practice a GPU.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from litevlm_ros.convert.demo_model import IMAGE_SIZE, PATCH_SIZE, TOKENS_PER_VIEW, DemoModel, demo_config
from litevlm_ros.demo import packing
from litevlm_ros.demo.packing import IGNORED, Pack, Vocabulary
from litevlm_ros.demo.scene import CAMERAS, FIRST_HELD_OUT_SEED, Scene, generate
from litevlm_ros.demo.tokenizer import save_tokenizer, train_tokenizer

_VARIANTS = 3
_VALIDATION_SCENES = 64
_VALIDATION_SEED = FIRST_HELD_OUT_SEED + 500_000_000
_COLUMNS = ("step", "seconds", "answers", "grid", "short_answers", "captions", "unseen_short_answers", "unseen_captions")

Sample = dict[str, Tensor]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("models/demo"), help="model directory to write")
    parser.add_argument("--work", type=Path, default=Path("demo_training"), help="checkpoint, log and loss curve")
    parser.add_argument("--steps", type=int, default=12000, help="optimizer steps in all")
    parser.add_argument("--scenes", type=int, default=48, help="scenes (of six views) per step")
    parser.add_argument("--buffer", type=int, default=40000, help="scenes kept on the device for reuse")
    parser.add_argument("--warm-buffer", type=int, default=1500, help="scenes to wait for before the first step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=15, help="processes that draw scenes")
    parser.add_argument("--time-limit", type=float, default=math.inf, help="seconds after which to save and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compile the training step")
    arguments = parser.parse_args(argv)
    arguments.work.mkdir(parents=True, exist_ok=True)
    done = Training(arguments).run()
    print("training is complete" if done else "stopped at the time limit; the same command continues")
    return 0


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Ids exactly as the pipeline builds them."""
    def text(string: str) -> list[int]:
        return list(tokenizer.encode(string, add_special_tokens=False).ids)
    special = tokenizer.token_to_id
    size = tokenizer.get_vocab_size()
    def prefix(cameras) -> list[int]:
        ids = [special("<|im_start|>"), *text("user\n")]
        for n, c in enumerate(cameras):
            ids += [*text(c.replace("_", " ") + ": "), special("<img>"), *range(size + n * TOKENS_PER_VIEW, size + (n + 1) * TOKENS_PER_VIEW), special("</img>"), *text("\n")]
        return ids
    def suffix(question: str) -> list[int]:
        return [*text(question), special("<|im_end|>"), *text("\n"), special("<|im_start|>"), *text("assistant\n")]
    return Vocabulary(prefix=prefix, suffix=suffix, text=text, end=special("<|im_end|>"))


def sample(scene: Scene, words: Vocabulary, rng: np.random.Generator, *, unseen: bool = False) -> Sample:
    """Pictures, grid labels and several variants of packed questions of one scene, as tensors."""
    singles, multis, orders = [], [], []
    for _ in range(_VARIANTS):
        singles.append([_rows(packing.single_view_pack(scene, camera, words, rng, unseen=unseen)) for camera in CAMERAS])
        count = int(rng.choice((2, 3, 4, 5, 6), p=(0.15, 0.15, 0.1, 0.1, 0.5)))
        # The cameras' usual order mostly, any order sometimes.
        picked = rng.permutation(len(CAMERAS)) if rng.random() < 0.3 else np.arange(len(CAMERAS))
        chosen = picked[:count] if rng.random() < 0.5 else np.sort(rng.permutation(len(CAMERAS))[:count])
        multis.append(_rows(packing.multi_view_pack(scene, [CAMERAS[i] for i in chosen], words, rng, unseen=unseen)))
        orders.append(np.concatenate([chosen, np.setdiff1d(np.arange(len(CAMERAS)), chosen)]))
    grid = int(math.isqrt(TOKENS_PER_VIEW))
    return {
        "pixels": torch.from_numpy(packing.pictures(scene, IMAGE_SIZE, rng)),
        "labels": torch.from_numpy(packing.grid_labels(scene, grid).reshape(len(CAMERAS), TOKENS_PER_VIEW, 3)),
        "single": torch.from_numpy(np.array(singles, np.int16)),
        "multi": torch.from_numpy(np.array(multis, np.int16)),
        "order": torch.from_numpy(np.array(orders, np.int16)),
    }


def _rows(pack: Pack) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack([pack.ids, pack.targets, pack.segment, pack.positions])


class _Scenes(IterableDataset):  # type: ignore[type-arg]
    """An endless stream of training scenes; worker w of n draws seeds start + w, start + w + n, ..."""

    def __init__(self, tokenizer: Tokenizer, start: int) -> None:
        self.tokenizer, self.start = tokenizer.to_str(), start

    def __iter__(self) -> Iterator[Sample]:
        torch.set_num_threads(1)
        words = vocabulary(Tokenizer.from_str(self.tokenizer))
        worker = get_worker_info()
        seed, stride = (self.start + worker.id, worker.num_workers) if worker else (self.start, 1)
        while True:
            scene_seed = seed % FIRST_HELD_OUT_SEED
            yield sample(generate(scene_seed), words, np.random.default_rng((scene_seed, 1)))
            seed += stride


class _Buffer:
    """A ring of samples on the device, from which each step draws at random."""

    def __init__(self, capacity: int, device: str) -> None:
        self.capacity, self.device = capacity, device
        self.rows: Sample = {}
        self.filled = self.written = 0

    def add(self, batch: Sample) -> None:
        count = len(batch["pixels"])
        if not self.rows:
            self.rows = {k: torch.empty((self.capacity, *v.shape[1:]), dtype=v.dtype, device=self.device) for k, v in batch.items()}
        at = (torch.arange(count) + self.written) % self.capacity
        for name, value in batch.items():
            self.rows[name][at.to(self.device)] = value.to(self.device, non_blocking=True)
        self.written += count
        self.filled = min(self.capacity, self.filled + count)

    def draw(self, count: int, generator: torch.Generator) -> Sample:
        at = torch.randint(self.filled, (count,), generator=generator).to(self.device)
        variant = int(torch.randint(_VARIANTS, (), generator=generator))
        return {k: v[at] if k in ("pixels", "labels") else v[at, variant] for k, v in self.rows.items()}


def _forward(model: DemoModel, batch: Sample, augment: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the single-view packs [b*6, s, v], of the multi-view packs [b, s, v], and the grid loss."""
    scenes = len(batch["pixels"])
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
    views = visual.unflatten(0, (scenes, len(CAMERAS)))
    ordered = views.gather(1, order[:, :, None, None].expand_as(views)).flatten(1, 2)
    many = model.read(multi[:, 0], multi[:, 2], multi[:, 3], ordered)
    return one, many, grid


def _loss(model: DemoModel, batch: Sample) -> tuple[Tensor, Tensor]:
    one, many, grid = _forward(model, batch, augment=True)
    answers = model.answer_loss(one, batch["single"].flatten(0, 1)[:, 1].long())
    answers = answers + model.answer_loss(many, batch["multi"][:, 1].long())
    return answers / 2, grid


class Training:
    """State of one run: model, optimizer, buffer and log."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        torch.manual_seed(arguments.seed)
        torch.set_float32_matmul_precision("high")
        self.device = arguments.device
        self.tokenizer = train_tokenizer()
        config = demo_config(self.tokenizer.get_vocab_size(), self.tokenizer.token_to_id("<IMG_CONTEXT>"))
        self.model = DemoModel(config).to(self.device)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=(0.9, 0.98))
        self.step, self.scenes_drawn = 0, 0
        self.log: list[dict[str, float]] = []
        self.checkpoint = arguments.work / "checkpoint.pt"
        if self.checkpoint.exists():
            self._restore()

    def run(self) -> bool:
        """Train until all steps are done (True) or the time limit is reached (False)."""
        arguments, begin = self.arguments, time.monotonic()
        scenes = DataLoader(
            _Scenes(self.tokenizer, arguments.seed * 50_000_000 + self.scenes_drawn),
            batch_size=8, num_workers=arguments.workers, prefetch_factor=8 if arguments.workers else None,
        )  # fmt: skip
        stream = iter(scenes)
        buffer = _Buffer(arguments.buffer, self.device)
        loss_of: Callable[[DemoModel, Sample], tuple[Tensor, Tensor]] = torch.compile(_loss) if arguments.compile else _loss
        generator = torch.Generator().manual_seed(arguments.seed + self.step)
        while buffer.filled < arguments.warm_buffer:
            buffer.add(next(stream))
        print(f"{buffer.filled} scenes after {time.monotonic() - begin:.0f} s; starting at step {self.step}", flush=True)
        validation = self._validation_samples()
        fresh_share = 0.0
        while self.step < arguments.steps and time.monotonic() - begin < arguments.time_limit:
            # Take what the workers have ready; never wait for them.
            fresh_share += 0.75
            while fresh_share >= 1 and _ready(stream):
                buffer.add(next(stream))
                fresh_share -= 1
            self._set_learning_rate()
            with torch.autocast(self.device, torch.bfloat16):
                answers, grid = loss_of(self.model, buffer.draw(arguments.scenes, generator))
            self.optimizer.zero_grad(set_to_none=True)
            (answers + 0.3 * grid).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            if self.step % 100 == 0 or self.step == arguments.steps:
                row = {"step": self.step, "seconds": time.monotonic() - begin, "answers": answers.item(), "grid": grid.item()}
                if self.step % 500 == 0 or self.step == arguments.steps:
                    row |= self._validate(validation)
                self.log.append(row)
                print(" ".join(f"{k} {v:.4g}" for k, v in row.items()), f"scenes {buffer.written}", flush=True)
        self.scenes_drawn += buffer.written
        self._save()
        return self.step >= arguments.steps

    def _set_learning_rate(self) -> None:
        warm = min(1.0, (self.step + 1) / 400)
        progress = self.step / self.arguments.steps
        factor = warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.arguments.learning_rate * factor

    def _validation_samples(self) -> dict[str, list[Sample]]:
        words = vocabulary(self.tokenizer)
        samples: dict[str, list[Sample]] = {"": [], "unseen_": []}
        for number in range(_VALIDATION_SCENES):
            seed = _VALIDATION_SEED + number
            unseen = number % 2 == 1
            scene = generate(seed, unseen=unseen)
            samples["unseen_" if unseen else ""].append(sample(scene, words, np.random.default_rng(seed), unseen=unseen))
        return samples

    @torch.no_grad()
    def _validate(self, validation: dict[str, list[Sample]]) -> dict[str, float]:
        """Share of short answers and of captions whose every token is the model's first choice."""
        shares = {}
        for name, samples in validation.items():
            right = {True: 0, False: 0}
            total = {True: 0, False: 0}
            for begin in range(0, len(samples), 8):
                batch = torch.utils.data.default_collate(samples[begin : begin + 8])
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
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
            "scenes_drawn": self.scenes_drawn, "log": self.log,
        }  # fmt: skip
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
        self.model.save(self.arguments.output)
        save_tokenizer(self.tokenizer, self.arguments.output / "text_decoder")
        with (self.arguments.work / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(self.log)
        _draw_curve(self.log, self.arguments.work / "loss_curve.png")

    def _restore(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.scenes_drawn, self.log = state["step"], state["scenes_drawn"], state["log"]


def _ready(stream: Iterator[Sample]) -> bool:
    queue = getattr(stream, "_data_queue", None)
    return queue is None or not queue.empty()


def _draw_curve(log: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in ("answers", "grid"):
        left.plot([row["step"] for row in log], [row[name] for row in log], label=name)
    left.set(xlabel="step", ylabel="cross entropy", yscale="log", title="training loss")
    left.legend()
    checked = [row for row in log if "captions" in row]
    for name in _COLUMNS[4:]:
        right.plot([row["step"] for row in checked], [100 * row[name] for row in checked], label=name.replace("_", " "))
    right.set(xlabel="step", ylabel="exactly right, %", title="held-out scenes (teacher forced)")
    right.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
