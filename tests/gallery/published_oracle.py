"""
What another converter makes of the checkpoints of published.py: the loaders that `transformers` had up to version 4.

    python -m tests.gallery.published_oracle            # in the environment that CONTRIBUTING.md describes

It writes published/<model>.json, {name of the state_dict: digest}, and published/cases.json: for each case of
published.py `error`, how the loader failed; `untouched`, the names that kept what the module was initialised with;
`changed`, the digests of what was loaded and is not as in <model>.json. `transformers` 5 has these loaders no more, so
the digests cannot be made by the environment that the tests run in.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gallery.published import CASES, MODELS, digest, write_all

RESULTS = Path(__file__).with_name("published")
VERSION = "4.40.2"

#: The mapping's name: the module's class, its configuration, its loader, and which part of the module that fills.
LOADERS = {
    "bert_base": ("BertForPreTraining", "BertConfig", "bert", ""),
    "bert_large": ("BertForPreTraining", "BertConfig", "bert", ""),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", "gpt2", "transformer"),
    "albert_base": ("AlbertForPreTraining", "AlbertConfig", "albert", ""),
    "electra_small": ("ElectraForPreTraining", "ElectraConfig", "electra", ""),
    "electra_small_generator": ("ElectraForMaskedLM", "ElectraConfig", "electra", ""),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", "MobileNetV1Config", "mobilenet_v1", ""),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", "MobileNetV2Config", "mobilenet_v2", ""),
    "t5_small": ("T5ForConditionalGeneration", "T5Config", "t5", ""),
}
#: What its conversion script passes for the generator; the loader's own default is the discriminator.
OPTIONS = {"electra_small_generator": {"as": "generator"}}


def loaded(name: str, prefix: Path, options: Mapping[str, str]) -> tuple[dict[str, str], list[str], str]:
    """
    What the loader makes of a checkpoint: digests by name, the names that kept what the module was initialised with,
    and how it failed, if it did.
    """
    import torch
    import transformers

    kind, configuration, package, part = LOADERS[name]
    loader = getattr(
        importlib.import_module(f"transformers.models.{package}.modeling_{package}"), f"load_tf_weights_in_{package}"
    )
    torch.manual_seed(0)
    config = getattr(transformers, configuration)(**{key: small for key, (_, small) in MODELS[name].sizes.items()})
    module = getattr(transformers, kind)(config)
    before = digests(module)
    error = ""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            loader(getattr(module, part) if part else module, config, str(prefix), *options.values())
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is what the caller would see
            error = f"{type(raised).__name__}: {raised}".splitlines()[0]
    after = digests(module)
    # A count that no checkpoint has: TensorFlow does not keep it, and a fresh module has 0.
    untouched = [key for key in after if after[key] == before[key] and not key.endswith("num_batches_tracked")]
    return after, untouched, error


def digests(module: Any) -> dict[str, str]:
    """Of every entry of the state_dict."""
    return {name: digest(tensor.detach().numpy()) for name, tensor in module.state_dict().items()}


def save(name: str, content: Mapping[str, Any]) -> None:
    """published/<name>.json."""
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Every model and every case."""
    import transformers

    if transformers.__version__ != VERSION:
        sys.exit(f"transformers is {transformers.__version__}, but the results are those of {VERSION}")
    published: dict[str, dict[str, str]] = {}
    cases: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        for name in MODELS:
            published[name], untouched, error = loaded(name, Path(folder) / name, OPTIONS.get(name, {}))
            if error or untouched:
                sys.exit(f"{name}: {error or f'not loaded: {untouched}'}")
            save(name, published[name])
        for name, case in CASES.items():
            got, untouched, error = loaded(case.model, Path(folder) / name, case.options or OPTIONS.get(case.model, {}))
            as_published = published[case.model]
            changed = {key: got[key] for key in got if key not in untouched and got[key] != as_published[key]}
            cases[name] = {"error": error} if error else {"untouched": untouched, "changed": changed}
    save("cases", cases)


if __name__ == "__main__":
    main()
