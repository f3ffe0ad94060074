"""What makes a folder of artifacts a model that MLflow's flavours can load.

`mlflow.transformers.save_model` writes the same, but it copies the weights, loads the tokenizer and asks the hub for
a model card on the way.
"""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MODEL = "model"
TOKENIZER = Path("components/tokenizer")
REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors")
"""A list of our own: the one that MLflow infers asks for torchvision."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def write_flavour(folder: Path, model_dir: Path, model_id: str) -> None:
    """Write everything of the version but its plain model, which goes to `MODEL`, into the empty `folder`."""
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    shutil.copytree(
        model_dir, folder / TOKENIZER, ignore=shutil.ignore_patterns(*WEIGHTS), copy_function=shutil.copyfile
    )
    text = Schema([ColSpec("string")])
    model = Model(model_id=model_id, signature=ModelSignature(inputs=text, outputs=text))
    model.add_flavor(
        "transformers",
        transformers_version=_version("transformers"),
        task="text-generation",
        instance_type="TextGenerationPipeline",
        pipeline_model_type="AutoModelForCausalLM",
        model_binary=MODEL,
        source_model_name=MODEL,
        components=["tokenizer"],
        tokenizer_type="AutoTokenizer",
        framework="pt",
    )
    pyfunc.add_to_model(model, loader_module="mlflow.transformers", python_env="python_env.yaml")
    requirements = [f"{name}=={_version(name)}" for name in REQUIREMENTS if _version(name)]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    (folder / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n"
    )
    model.save(str(folder / "MLmodel"))


def _version(package: str) -> str | None:
    """Without the local part, such as `+cpu`, which no package index has."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None
