"""What every job of an experiment costs: passes, memory and disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nsvit import config as c
from nsvit import specs
from nsvit.planning.jobs import Job
from nsvit.planning.pictures import CELLS, Sizes, sizes_of
from nsvit.planning.vit import VitShape, shape_of
from nsvit.planning.work import (
    AUGMENT_SECONDS,
    CUT_SECONDS,
    KEEP_BYTES,
    Work,
    added,
    evaluation,
    learned,
    passes,
    read_seconds,
    shrunk,
)

MB = 1e6
#: What a job with torch holds before it has a model; measured in the default run (docs/plan.md).
TORCH_MB = 1000
#: What CUDA takes of the host's memory beside that; an assumption.
CUDA_MB = 2000
#: What a job without torch holds.
PLAIN_MB = 1000
#: Bytes of a row of records on disk; measured in the default run.
ROW_BYTES = 27
#: Bytes of a corrupted picture of 224 pixels as JPEG, about; scaled with the area.
JPEG_BYTES = 20_000

#: Memory that a table or figure takes for each score (a picture in a condition and run; those of
#: all corruptions together are one) and for each row of the largest file, which is read at once.
#: Both measured on made-up records of the paper's size.
PAGE_SCORE_BYTES, PAGE_FILE_BYTES = 200, 950
#: Time for each row of the records; measured in the default run (table_paired).
PAGE_ROW_SECONDS = 8e-6
#: Seconds of a core to corrupt a picture of 224 pixels, the mean of all 75 ways; measured.
CORRUPT_SECONDS = 0.011

#: Rules that use a GPU where there is one.
GPU_RULES = frozenset(
    ("pretrain_model", "learn_noise", "influence", "lambda_study", "finetune", "evaluate")
    + ("dynamics",)
)


@dataclass(frozen=True)
class Cost:
    """What one job costs.

    Attributes:
        works: what it computes.
        gpu_mb: memory of the device at its peak, without what torch's allocator wastes.
        host_mb: memory of the host when the device is a GPU; on a CPU both together.
        disk_mb: what it leaves on disk.
        plain_seconds: of one core, for what is neither reading pictures nor passes.
    """

    works: tuple[Work, ...] = ()
    gpu_mb: float = 0.0
    host_mb: float = PLAIN_MB
    disk_mb: float = 0.0
    plain_seconds: float = 0.0

    @property
    def total(self) -> Work:
        """All works together."""
        return added("total", self.works)


#: Rules beside `table` that read every record, or its score.
_PAGES = (
    *("scores", "table_paired", "table_attacks", "table_claims"),
    *("figure_corruptions", "figure_radius"),
)


class Costs:
    """The costs of the jobs of one experiment."""

    def __init__(self, exp: c.Experiment, sizes: Sizes | None = None) -> None:
        self.exp = exp
        self.sizes = sizes or sizes_of(exp)
        train = exp.data.sets[exp.data.train]
        self._read = read_seconds(train)
        small = exp.data.menagerie is not None
        self._augment = CUT_SECONDS if small else AUGMENT_SECONDS
        self.shapes: dict[str, VitShape | None] = {
            slug: shape_of(model) for slug, model in exp.models.items()
        }
        self.sources: dict[str, VitShape | None] = {
            slug: shape_of(model) for slug, model in exp.evaluate.sources.items()
        }
        self._of: dict[str, Callable[..., Cost]] = {
            "scan": self._scan,
            "corrupt": self._corrupt,
            "prepare_model": lambda m: self._model(m, (), 2),
            "nullspace": self._nullspace,
            "learn_noise": self._learn_noise,
            "influence": self._influence,
            "lambda_study": self._lambda_study,
            "finetune": self._finetune,
            "evaluate": self._evaluate,
            "dynamics": self._dynamics,
            "table": lambda name: self._page(exp.table_runs(name)),
            **dict.fromkeys(_PAGES, lambda: self._page([(m, a) for m, a, _ in exp.runs()])),
        }

    def of(self, job: Job) -> Cost:
        """The cost of a job; of a rule that only reads records, next to nothing."""
        return self.of_rule(job.rule, *job.wildcards)

    def of_rule(self, rule: str, *wildcards: str) -> Cost:
        """The cost of the job of a rule with these wildcards, in the rule's order."""
        known = self._of.get(rule)
        return known(*wildcards) if known else Cost()

    # --- pictures -----------------------------------------------------------------------------

    def _scan(self, name: str) -> Cost:
        count = self.sizes.of(name)
        each = read_seconds(self.exp.data.sets[name])
        work = passes("check", None, decoded=count, each=each)
        return Cost((work,), host_mb=PLAIN_MB + count * 0.001)

    def _corrupt(self, name: str) -> Cost:
        count = self.sizes.of(name)
        own = self.exp.data.sets[name].corrupt
        side = (own and self.exp.data.sets[own.source].crop) or 224
        disk = count * JPEG_BYTES * (side / 224) ** 2
        work = passes("corrupt", None, decoded=count, each=CORRUPT_SECONDS)
        return Cost((work,), 0.0, PLAIN_MB, disk / MB)

    def _page(self, pairs: Iterable[tuple[str, str]]) -> Cost:
        """A table or figure of the records of all seeds of these models and arms."""
        found = [self._rows(*pair) for pair in dict.fromkeys(pairs)]
        rows, scores = sum(one[0] for one in found), sum(one[1] for one in found)
        largest = max((one[2] for one in found), default=0)
        host = PLAIN_MB + (scores * PAGE_SCORE_BYTES + largest * PAGE_FILE_BYTES) / MB
        return Cost(host_mb=host, plain_seconds=rows * PAGE_ROW_SECONDS)

    @functools.cache  # noqa: B019 - lives as long as the plan
    def _rows(self, model: str, arm: str) -> tuple[int, int, int]:
        """Of the records of a pair's runs: rows, scores, and rows of the largest file."""
        rows = scores = largest = 0
        seeds = len(self.exp.seeds(model, arm))
        for one in self.exp.conditions(model, arm).values():
            count = self.sizes.of(one.set, one.images)
            cells = CELLS if one.set in self.sizes.corrupted else 1
            rows, scores = rows + count * seeds, scores + count // cells * seeds
            largest = max(largest, count)
        return rows, scores, largest

    # --- models -------------------------------------------------------------------------------

    def _model(
        self,
        model: str,
        works: tuple[Work, ...],
        copies: float,
        kept_bytes: float = 0.0,
        disk_bytes: float = 0.0,
        host_bytes: float = 0.0,
    ) -> Cost:
        """The cost of a job with one model: copies of its weights, and what a batch leaves."""
        shape = self.shapes[model]
        held = shape.weight_bytes if shape else 0
        device = (copies * held + kept_bytes) / MB
        host = TORCH_MB + CUDA_MB + (2 * held + host_bytes) / MB
        return Cost(works, device, host, disk_bytes / MB)

    def _kept(self, model: str, batch: int) -> float:
        """Bytes that a batch leaves behind for its backward pass."""
        shape = self.shapes[model]
        return batch * shape.training_bytes if shape else 0.0

    def _pixels(self, model: str, count: int, limit: float = KEEP_BYTES) -> float:
        """Bytes of decoded pictures that are kept, 0 where they do not fit."""
        shape = self.shapes[model]
        size = count * 3 * shape.image**2 if shape else 0
        return size if size <= limit else 0.0

    def _weights(self, model: str) -> int:
        shape = self.shapes[model]
        return shape.weight_bytes if shape else 0

    def _nullspace(self, model: str) -> Cost:
        own, shape = self.exp.nullspace, self.shapes[model]
        works = (passes("demonstration", shape, 4 * own.images, decoded=own.images),)
        return self._model(model, works, 1, self._kept(model, own.images))

    # --- noise --------------------------------------------------------------------------------

    def _learn_noise(self, model: str) -> Cost:
        spec, shape = specs.learn_noise(self.exp, model), self.shapes[model]
        depth = shape.depth if shape else 12
        noises = [
            learned(shape, spec.noise, block, "noise", self._read)
            for block in range(depth)
            for _ in range(spec.draws)
        ]
        batch = min(spec.noise.batch_size, spec.noise.pool)
        pool = self._pixels(model, spec.noise.pool, KEEP_BYTES / 4)
        disk = depth * spec.draws * 4.0 * (shape.patches * shape.width if shape else 0)
        return self._model(
            model, (added("noise", noises),), 1, self._kept(model, batch), disk, pool
        )

    def _influence(self, model: str) -> Cost:
        shape, noises = self.shapes[model], specs.learn_noise(self.exp, model)
        images = specs.influence(self.exp, model).images
        count = (shape.depth if shape else 12) * noises.draws
        works = (passes("measure", shape, images * (1 + 3 * count), decoded=images),)
        rows, pictures = 3 * count * images * ROW_BYTES, 4 * self._pixels(model, images)
        return self._model(model, works, 1, self._kept(model, 25), rows, pictures)

    def _lambda_study(self, model: str) -> Cost:
        study, shape = specs.lambda_study(self.exp, model).study, self.shapes[model]
        own = c.NoiseConfig(
            max_steps=study.steps, pool=study.pool, batch_size=study.batch_size, early_stop=False
        )
        count = len(study.lambdas) * study.draws + max(0, 2 - study.draws)
        noises = [learned(shape, own, 0, "noise", self._read) for _ in range(count)]
        built = 2 * (2 * len(study.closure.factors) + len(study.closure.weights) + 1)
        measured = study.images * (1 + 2 * len(study.lambdas) * study.draws)
        measured += study.closure.images * built
        works = (
            added("noise", noises),
            passes("measure", shape, measured, decoded=study.images),
        )
        rows = ROW_BYTES * measured
        pictures = 4 * self._pixels(model, study.images)
        return self._model(model, works, 1, self._kept(model, study.batch_size), rows, pictures)

    # --- runs ---------------------------------------------------------------------------------

    def _finetune(self, model: str, arm: str, seed: str) -> Cost:
        spec, shape = specs.finetune(self.exp, model, arm, int(seed)), self.shapes[model]
        config, dev = spec.finetune, spec.split.dev_images
        shown = config.rounds * config.steps * config.batch_size
        works = [passes("dev", shape, (config.rounds + 1) * dev, decoded=dev, each=self._read)]
        kept = 0.0
        if shown:
            seen = 2 * shown
            training = passes("training", shape, seen, 0, seen, shown, each=self._augment)
            works.append(training)
            kept = self._kept(model, 2 * config.batch_size)
        if spec.kind in ("madry", "trades"):
            steps = config.adversarial.steps
            clean = shown if spec.kind == "trades" else 0
            works.append(passes("attack", shape, steps * shown + clean, steps * shown))
        noise: list[Work] = []
        if spec.kind == "nullspace":
            noise = [
                learned(shape, config.noise, config.block, "noise", self._read)
            ] * config.rounds
        elif spec.kind == "random":
            noise = [
                shrunk(shape, config.noise, config.random, "noise", self._read)
            ] * config.rounds
        if noise:
            works.append(added("noise", noise))
        copies = 4 if shown else 1
        disk = (config.rounds + 2 + (4 if shown else 0)) * self._weights(model)
        pictures = self._pixels(model, dev) + self._pixels(model, config.noise.pool, KEEP_BYTES / 4)
        return self._model(model, tuple(works), copies, kept, disk, pictures)

    def _evaluate(self, model: str, arm: str, job: str, part: str) -> Cost:
        spec = specs.evaluate(self.exp, model, arm, job, part)
        works = self._evaluation(model, spec.conditions)
        times = len(spec.seeds)
        every = tuple(added(work.what, [work] * times) for work in works)
        attacked = any(condition.attack is not None for condition in spec.conditions.values())
        batch = spec.batch_size if attacked else spec.batch_size / 12  # no graph: a block at a time
        kept = self._kept(model, 1) * batch
        counts = [self.sizes.of(one.set, one.images) for one in spec.conditions.values()]
        disk, most = sum(counts) * times * ROW_BYTES, max(counts, default=0)
        pictures = self._pixels(model, most) if times > 1 else 0.0
        return self._model(model, every, 1 + len(spec.sources), kept, disk, pictures)

    def _evaluation(self, model: str, conditions: dict[str, c.ConditionConfig]) -> list[Work]:
        return evaluation(
            conditions,
            self.sizes,
            self.exp.data.sets,
            self.shapes[model],
            self.sources,
            self.exp.evaluate.batch_size,
        )

    def _dynamics(self, model: str, arm: str) -> Cost:
        spec = specs.dynamics(self.exp, model, arm)
        first = {
            name: spec.corrupted_images if name in self.sizes.corrupted else spec.images
            for name in self.exp.data.sets
        }
        works = evaluation(
            spec.conditions,
            self.sizes,
            self.exp.data.sets,
            self.shapes[model],
            self.sources,
            spec.batch_size,
            first,
        )
        rounds = self.exp.resolve(arm).rounds + 1
        whole = added("rounds", [work for work in works for _ in range(rounds)])
        rows = sum(self.sizes.of(one.set, first[one.set]) for one in spec.conditions.values())
        pictures = self._pixels(model, rows, 8 * KEEP_BYTES)
        kept = self._kept(model, spec.batch_size)
        return self._model(model, (whole,), 1, kept, rows * rounds * ROW_BYTES, pictures)
