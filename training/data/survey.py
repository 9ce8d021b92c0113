"""Everything that can be known of the data without any model."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..options import Options
from . import bad, buckets, captions, config, pictures, prompts, sources
from .bad import Bad
from .samples import Sample, check_epoch


@dataclass(frozen=True)
class Survey:
    """All samples that can be used, by the folder or file that they come from, and those that cannot."""

    groups: dict[str, list[Sample]]
    bad: Sequence[Bad] = ()

    @property
    def samples(self) -> list[Sample]:
        return [sample for group in self.groups.values() for sample in group]

    def without(self, more: Sequence[Bad]) -> "Survey":
        """The same without these."""
        names = {item.name for item in more}
        left = {folder: [s for s in group if s.name not in names] for folder, group in self.groups.items()}
        return Survey(left, [*self.bad, *more])

    def lines(self) -> list[str]:
        """What there is, for a person to read."""
        made = [f"data: {len(self.samples):,} samples, {sum(s.repeats for s in self.samples):,} in an epoch"]
        for name, group in self.groups.items():
            repeats = ", ".join(f"{count:,} x {times}" for times, count in counted(s.repeats for s in group))
            made.append(f"  {name}: {repeats or 'none'}")
        for (width, height), count in counted(s.fit.bucket for s in self.samples):
            made.append(f"  bucket {width} x {height}: {count:,}")
        return made + (
            [f"  left out: {len(self.bad):,}", *(f"    {line}" for line in bad.listed(self.bad))] if self.bad else []
        )


def counted(values: Iterable[Any]) -> list[tuple[Any, int]]:
    """[(value, how often)], in order of the values."""
    return sorted(Counter(values).items())


def examine(job: tuple[Path, sources.Subset]) -> Sample | Bad:
    """One picture, fully decoded, and its caption; or what is wrong with them."""
    path, subset = job
    try:
        caption, content = captions.read(path, subset), path.read_bytes()
        size = pictures.decode(content).size
        fit = buckets.fit(size, subset.opts)
    except (OSError, ValueError) as error:
        return Bad(str(path), str(error))
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return Sample(str(path), caption, subset.repeats, subset.opts, size, fit, digest, path)


def subsets(opts: Options) -> list[sources.Subset]:
    """All folders of pictures. Raises ValueError for what is not as it should be."""
    if opts.dataset_config:
        return config.subsets(Path(opts.dataset_config), opts)
    return sources.of_folders(opts)


def of_pictures(opts: Options) -> Survey:
    """Every picture of every subset, read in threads. Raises ValueError that names what cannot be used."""
    jobs = [(path, subset) for subset in subsets(opts) for path in subset.pictures()]
    check_epoch(sum(subset.repeats for _, subset in jobs))
    with ThreadPoolExecutor(opts.max_data_loader_n_workers) as pool:
        found = list(tqdm(pool.map(examine, jobs), total=len(jobs), desc="look at pictures", unit="picture"))
    unusable = [item for item in found if isinstance(item, Bad)]
    bad.settle(unusable, len(found), opts)
    groups: dict[str, list[Sample]] = {str(subset.folder): [] for _, subset in jobs}
    for (_, subset), item in zip(jobs, found, strict=True):
        if isinstance(item, Sample):
            groups[str(subset.folder)].append(item)
    return Survey(groups, unusable)


def survey(opts: Options) -> Survey:
    """What there is to train on, each picture looked at. Raises ValueError for everything that `load` would refuse
    without a model."""
    return Survey({opts.prompts: prompts.samples(opts)}) if opts.prompts else of_pictures(opts)
