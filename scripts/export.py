"""A checkpoint as a Hugging Face folder: ``python scripts/export.py RUN OUT [--best | --step N]``.

RUN is the folder of a run, or one of its checkpoints. OUT gets safetensors, configuration, tokenizer and a
model card with the run's own figures. A LoRA adapter is merged into its base model, or copied with
--adapter-only. With --push-to-hub OWNER/NAME it says what it would upload, and uploads it with --yes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from expert_iteration.checkpoint import DamagedCheckpoint, SaveFailed
from expert_iteration.config import ConfigError
from expert_iteration.export.folder import export, find_checkpoint, is_export_of
from expert_iteration.export.hub import check_name, describe_upload, upload
from expert_iteration.launch import explain


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        if options.push_to_hub is not None:
            check_name(options.push_to_hub)
        write(options)
        if options.push_to_hub is not None:
            push(options)
    except (ConfigError, DamagedCheckpoint, SaveFailed) as error:
        raise SystemExit(explain(error)) from None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("source", type=Path, metavar="RUN", help="run folder, or a checkpoint in it")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, empty or new")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the checkpoint with the best greedy accuracy")
    which.add_argument("--step", type=int, metavar="N", help="that of optimizer step N (default: the newest)")
    parser.add_argument("--adapter-only", action="store_true", help="do not merge a LoRA adapter")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload OUT; needs --yes")
    parser.add_argument("--public", action="store_true", help="let everybody read what is uploaded")
    parser.add_argument("--yes", action="store_true", help="do upload")
    return parser.parse_args(arguments)


def write(options: argparse.Namespace) -> None:
    checkpoint = find_checkpoint(options.source, options.step, options.best)
    if options.push_to_hub is not None and is_export_of(options.out, checkpoint, options.adapter_only):
        print(f"{options.out} holds {checkpoint.name} already; its files are taken as they are.")
        return
    export(checkpoint, options.out, options.adapter_only)
    print(f"{checkpoint} is exported to {options.out}; README.md names no license yet.")


def push(options: argparse.Namespace) -> None:
    for line in describe_upload(options.out, options.push_to_hub, options.public):
        print(line)
    if not options.yes:
        print("Nothing was uploaded. Read README.md, then give the same command with --yes.")
        return
    from huggingface_hub import HfApi

    upload(options.out, options.push_to_hub, HfApi(), options.public)
    print("Uploaded.")


if __name__ == "__main__":
    main()
