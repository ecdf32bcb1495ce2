# shellcheck shell=bash
# What the batch scripts of this folder share: a run that goes on over all starts of its job, in one folder.
cd "${SLURM_SUBMIT_DIR:?this is for sbatch}" || exit
folder=outputs/slurm-$SLURM_JOB_ID
run=
code=0

# Train with the overrides that are given until the run ends, on SIGTERM with a checkpoint; sets `code`.
train() {
    local resume=() told=0
    if compgen -G "$folder/checkpoints/step_*/manifest.json" >/dev/null; then
        resume=("resume=$folder")
    elif [[ -d $folder ]]; then
        mv "$folder" "$folder-without-checkpoint-$(date +%s)"
    fi
    .venv/bin/python scripts/train.py "$@" "${resume[@]}" "hydra.run.dir=$folder" &
    run=$!
    trap 'told=1; kill -TERM $run' TERM
    wait $run || code=$?
    # the signal has ended that wait, not the run
    if ((told)); then
        code=0
        wait $run || code=$?
    fi
}

# Back into the queue, if a signal has stopped the run; then end as it did.
end() {
    if ((code == 0)) && grep -q '"exit_reason": "stopped"' "$folder/summary.json"; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
