// The data, what part of it is in view, and where it is on the canvas. Times are nanoseconds.
const data = JSON.parse(document.getElementById("data").textContent);
const canvas = document.getElementById("canvas"), chart = document.getElementById("chart");
const pen = canvas.getContext("2d"), tip = document.getElementById("tip");
const KINDS = ["forward", "backward", "weight gradient"];
const AXIS = 24, HEADING = 20, STAGES = 26, MEMORY = 22, GAP = 5;

const whole = Math.max(1, ...data.runs.map(run => run.end));
const view = { from: 0, to: whole, bubbles: true, memory: true, critical: false, hovered: null, selected: null };

for (const run of data.runs) {
  run.isCritical = new Set(run.critical);
  // Where each task ran: lane and place in it.
  run.place = new Map();
  run.lanes.forEach((lane, rank) => {
    lane.task.forEach((task, i) => run.place.set(task, [rank, i]));
    lane.waitEnds = lane.bubbles.filter((_, i) => i % 3 === 1);
  });
}
for (const graph of data.graphs) {
  graph.users = graph.kind.map(() => []);
  graph.deps.forEach((deps, task) => {
    for (let i = 0; i < deps.length; i += 2) graph.users[deps[i]].push(task);
  });
}

// The rows of the chart from top to bottom: a heading for each run, then its ranks.
function rows() {
  const all = [];
  let y = AXIS;
  data.runs.forEach((run, r) => {
    all.push({ y, height: HEADING, run: r, rank: -1 });
    y += HEADING;
    run.lanes.forEach((_, rank) => {
      const height = STAGES + (view.memory ? MEMORY : 0) + GAP;
      all.push({ y, height, run: r, rank });
      y += height;
    });
  });
  return { all, height: y };
}

const gutter = () => (canvas.clientWidth < 560 ? 54 : 108);
const span = () => view.to - view.from;
const width = () => Math.max(1, canvas.clientWidth - gutter());
const xOf = time => gutter() + (time - view.from) / span() * width();
const timeAt = x => view.from + (x - gutter()) / width() * span();

// Shows `span` nanoseconds from `from`, as far as there are so many.
function show(from, length) {
  length = Math.min(whole, Math.max(length, Math.min(whole, 100)));
  view.from = Math.min(Math.max(0, from), whole - length);
  view.to = view.from + length;
  draw();
}

function zoom(factor, x) {
  const time = timeAt(x), length = Math.min(whole, Math.max(span() * factor, 100));
  show(time - (time - view.from) * length / span(), length);
}

// The first index from `low` at which `values` exceed `value`. `values` never decrease.
function firstAbove(values, value, low = 0, stride = 1) {
  let high = values.length / stride;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle * stride] > value) high = middle; else low = middle + 1;
  }
  return low;
}

function time(ns) {
  const size = Math.abs(ns);
  if (size >= 1e9) return (ns / 1e9).toPrecision(4) + " s";
  if (size >= 1e6) return (ns / 1e6).toPrecision(4) + " ms";
  return size >= 1e3 ? (ns / 1e3).toPrecision(4) + " µs" : Math.round(ns) + " ns";
}

function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let i = 0;
  for (; n >= 1000 && i < 5; i++) n /= 1000;
  return (i ? n.toPrecision(3) : n) + " " + units[i];
}

// What the stages of two graphs must share to be the same stage.
function name(graph, task) {
  return [graph.kind[task], graph.module[task], graph.segment[task], graph.microbatch[task], graph.sub[task]].join();
}
