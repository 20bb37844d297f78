#!/usr/bin/env bash
# Redraws the tables of docs/evaluation.md and docs/search.md: `scripts/evaluation.sh OUT` runs overnight on two cores,
# `scripts/evaluation.sh OUT short` takes minutes and shows that every command runs. Each table goes to a file of its own in OUT;
# tables that are there already are kept, so that a stopped run goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:?give a folder for the tables}
mode=${2:-full}
mkdir -p "$out"
case $mode in
    full) batches=20 figure_batches=5 search=300 budget=2s seeds=10 timeout=300 progress=0.5,1,2,5 ;;
    short) batches=1 figure_batches=1 search=5 budget=100ms seeds=1 timeout=2 progress=0.1 ;;
    *) echo "the second argument is $mode, but must be short or absent" >&2; exit 2 ;;
esac

cargo build --release --no-default-features --features cli
dip="${CARGO_TARGET_DIR:-target}/release/dip"

# Writes the output of a command to a table, whole or not at all, and says how long it took.
table() {
    local name=$1 start=$SECONDS
    shift
    if [ -e "$out/$name.txt" ]; then
        echo "$name: kept"
        return
    fi
    "$@" > "$out/$name.part"
    mv "$out/$name.part" "$out/$name.txt"
    echo "$name: $((SECONDS - start)) s"
}

compare() { "$dip" compare --iterations-budget "$search" --threads 1 --seed 0 "$@"; }
all=fsdp,megatron,nnscaler,optimus,megatron-mimo,entrain,dynapipe,dip

# docs/evaluation.md
for model in vlm-s vlm-m vlm-l t2v-s t2v-l; do
    table "average-$model" compare --models "$model" --schedules "$all" --iterations "$batches"
done
table h20 compare --models vlm-s --cluster h20 --schedules "$all" --iterations "$batches"
for figure in dynamic sizes memory ladder; do
    table "figure-$figure" compare --models vlm-s,t2v-s --iterations "$figure_batches" --figures "$figure" \
        --html "$out/$figure.html" --json="$out/$figure.json"
done
table figure-search compare --models vlm-m --schedules dip --iterations 1 --figures search --html "$out/search.html"
if [ "$mode" = full ]; then
    table figure-grid compare --models vlm-m --iterations 2 --figures grid --html "$out/grid.html" --json="$out/grid.json"
    # Each at the two sizes of the paper.
    for size in "vlm-xl 8" "vlm-xl 16" "t2v-xl 4" "t2v-xl 8"; do
        read -r model ranks <<< "$size"
        table "large-$model-$ranks" compare --models "$model" --pipeline "$ranks" --iterations 2
    done
fi

# docs/search.md
gaps() {
    for model in vlm-s vlm-m vlm-l t2v-s t2v-l omni-s; do
        for seed in $(seq 0 $((seeds - 1))); do
            "$dip" plan --model "$model" --cluster h800 --budget "$budget" --threads 2 --seed "$seed" |
                sed -n "s/^makespan/$model $seed/p"
        done
    done
}
table gaps gaps
table waves python3 scripts/waves.py "$dip"
table progress python3 scripts/search_progress.py "$dip" 0 "$progress"
if python3 -c "import ortools" 2>/dev/null; then
    table optimality python3 scripts/optimality.py "$dip" --graphs "$((seeds * 5))" --timeout "$((timeout / 15 + 1))"
else
    echo "optimality: left out; it needs pip install ortools"
fi

# docs/validation.md
table validation cargo test --release --no-default-features --features cli --test main validation -- --nocapture
