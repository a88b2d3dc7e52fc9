"""Packaging of hf_chain."""

from pathlib import Path

from setuptools import find_packages, setup

extras = {
    "deepspeed": ["deepspeed>=0.18"],
    "flash-attn": ["flash-attn>=2.6"],
    # Harnesses of other groups, for language models and for exported grafts. The two go together with transformers 5;
    # lmms-eval reads Llava only with decord, which its extra brings, and imports a module that filelock 4 has no more.
    "eval": ["filelock<4", "lm-eval>=0.4.13", "lmms-eval[video-legacy]>=0.7.3"],
    "docs": ["furo>=2025.7", "myst-parser>=4.0", "sphinx>=8.0", "sphinx-copybutton>=0.5"],
    "test": ["hypothesis>=6.100", "pytest>=8.0", "pytest-timeout>=2.3", "pytest-xdist>=3.7", "tensorboardX>=2.6"],
    "quality": ["mypy>=1.15", "pre-commit>=4.0", "ruff>=0.12", "types-PyYAML", "types-tqdm"],
}
extras["dev"] = extras["test"] + extras["quality"] + extras["docs"] + extras["deepspeed"]

setup(
    name="hf-chain",
    version="0.1.0",
    description="Train something small first and hand its knowledge on: model chains for the Hugging Face ecosystem.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The hf_chain team",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="clip pre-training growth distillation transformers chain-of-models",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"hf_chain": ["py.typed", "**/*.jinja", "**/*.css"]},
    python_requires=">=3.10",
    install_requires=[
        "accelerate>=1.12",
        "datasets>=4.0",
        "fsspec>=2023.12",
        "filelock>=3.20",
        "huggingface_hub>=1.31",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "numpy>=1.26",
        "peft>=0.18",
        "pillow>=10.0",
        "pydantic>=2.9",
        "pyyaml>=6.0",
        "safetensors>=0.5",
        "tenacity>=9.0",
        "tokenizers>=0.22",
        "torch>=2.6",
        "tqdm>=4.66",
        "transformers>=5.19",
        "typer>=0.16",
        "xxhash>=3.0",
    ],
    extras_require=extras,
    entry_points={"console_scripts": ["hf-chain=hf_chain.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
