#!/usr/bin/env bash
# Packs the pictures of the npm package `openmoji` (CC BY-SA 4.0), each with its name, into WebDataset shards.
#
#   scripts/openmoji-shards.sh [folder]     # default: data/openmoji
#
# The package has SVG drawings. The npm package `resvg` renders them at 72 x 72 pixels. One picture in twenty is held out. Needs
# npm, node and tar. Train on the shards with examples/openmoji.toml.
set -euo pipefail

mkdir -p "${1:-data/openmoji}"
out=$(realpath "${1:-data/openmoji}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
npm install --silent --no-fund --no-audit openmoji@17.0.0 @resvg/resvg-js@2.6.2
mkdir train held-out

cat > pack.js <<'JS'
const fs = require("fs");
const { Resvg } = require("@resvg/resvg-js");
const root = "node_modules/openmoji";
const emoji = JSON.parse(fs.readFileSync(`${root}/data/openmoji.json`));
let count = 0;
for (const { hexcode, annotation } of emoji) {
  const drawing = `${root}/color/svg/${hexcode}.svg`;
  if (!annotation || !fs.existsSync(drawing)) continue;
  const stem = `${count++ % 20 === 19 ? "held-out" : "train"}/${hexcode.toLowerCase()}`;
  const picture = new Resvg(fs.readFileSync(drawing), { fitTo: { mode: "width", value: 72 } });
  fs.writeFileSync(`${stem}.png`, picture.render().asPng());
  fs.writeFileSync(`${stem}.txt`, `${annotation}.`);
}
console.log(`${count} pictures with names`);
JS
node pack.js

# The files of a sample must be adjacent in a shard.
for part in train held-out; do
    find "$part" -name '*.png' -printf '%f\n' | sed 's/\.png$//' | sort | split -l 1000 -d - "$part-"
    for list in "$part"-*; do
        sed 's|.*|&.png\n&.txt|' "$list" | tar --format=ustar -C "$part" -cf "$out/$list.tar" -T -
    done
done
ls -l "$out"
