// Drawing: only the rows and the stages in view, and at most one stage a pixel.
let rowsNow = rows(), queued = false;
const theme = {};

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    const began = performance.now();
    paint();
    window.dip = { stages: stageCount, view, firstPaintMs: window.dip ? window.dip.firstPaintMs : performance.now(), paintMs: performance.now() - began };
  });
}
const stageCount = data.runs.reduce((n, run) => n + run.lanes.reduce((m, lane) => m + lane.task.length, 0), 0);

function paint() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["fg", "bg", "line", "lane"]) theme[name] = style.getPropertyValue("--" + name);
  rowsNow = rows();
  const visible = Math.min(rowsNow.height + 4, parseFloat(getComputedStyle(chart).maxHeight) || rowsNow.height);
  const ratio = window.devicePixelRatio || 1, w = chart.clientWidth;
  canvas.style.height = visible + "px";
  document.getElementById("spacer").style.height = Math.max(0, rowsNow.height + 4 - visible) + "px";
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(visible * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(visible * ratio);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = theme.bg;
  pen.fillRect(0, 0, w, visible);
  pen.font = "11px system-ui,sans-serif";
  pen.textBaseline = "middle";
  const scrolled = chart.scrollTop;
  for (const row of rowsNow.all) {
    const y = row.y - scrolled;
    if (y + row.height < AXIS || y > visible) continue;
    if (row.rank < 0) heading(data.runs[row.run], y); else lane(data.runs[row.run], row.rank, y);
  }
  for (const shown of [view.selected, view.hovered]) if (shown) arrows(shown, scrolled);
  axis(w, visible);
}

function heading(run, y) {
  pen.fillStyle = theme.fg;
  pen.font = "600 12px system-ui,sans-serif";
  pen.fillText(run.label, 4, y + HEADING / 2);
  const left = 4 + pen.measureText(run.label + "  ").width;
  pen.font = "11px system-ui,sans-serif";
  const above = run.makespan / data.runs[0].makespan - 1;
  const change = run === data.runs[0] ? "" : " (" + (above >= 0 ? "+" : "") + (100 * above).toFixed(1) + " %)";
  pen.fillText(time(run.makespan) + change, left, y + HEADING / 2);
}

function lane(run, rank, y) {
  const row = run.lanes[rank], left = gutter(), graph = data.graphs[run.graph];
  pen.fillStyle = theme.lane;
  pen.fillRect(left, y, width(), STAGES);
  pen.save();
  pen.beginPath();
  pen.rect(left, y - 1, width(), STAGES + MEMORY + 2);
  pen.clip();
  if (view.bubbles) waits(row, y);
  rest(run, row, y);
  stages(run, graph, row, y);
  if (view.memory) memory(row, y + STAGES);
  pen.restore();
  pen.fillStyle = theme.fg;
  const busy = (100 * row.busy).toFixed(0) + " %";
  pen.fillText(left < 80 ? rank + " " + busy : "rank " + rank + "  " + busy, 4, y + STAGES / 2);
  if (view.memory && left >= 80) {
    pen.globalAlpha = 0.65;
    pen.fillText("peak " + bytes(row.peak), 4, y + STAGES + MEMORY / 2);
    pen.globalAlpha = 1;
  }
}

// Bubbles are hatched in the colour of their cause.
function waits(row, y) {
  const list = row.bubbles;
  let i = 3 * firstAbove(row.waitEnds, view.from);
  for (let last = -1; i < list.length && list[i] < view.to; i += 3) {
    const x = xOf(list[i]), w = xOf(list[i + 1]) - x;
    if (w < 0.5 && Math.floor(x) === last) continue;
    last = Math.floor(x);
    pen.fillStyle = hatch(data.causes[list[i + 2]].colour);
    pen.fillRect(x, y, Math.max(w, 0.5), STAGES);
  }
}

const hatches = {};
function hatch(colour) {
  if (hatches[colour]) return hatches[colour];
  const tile = document.createElement("canvas"), ink = tile.getContext("2d");
  tile.width = tile.height = 6;
  ink.strokeStyle = colour;
  ink.lineWidth = 2;
  for (const shift of [-6, 0, 6]) {
    ink.beginPath();
    ink.moveTo(shift, 6);
    ink.lineTo(shift + 6, 0);
    ink.stroke();
  }
  return hatches[colour] = pen.createPattern(tile, "repeat");
}

// From the last stage to the end of the iteration: gradient sums and the optimiser.
function rest(run, row, y) {
  if (run.end <= run.makespan) return;
  const from = xOf(run.makespan), to = xOf(run.end);
  pen.fillStyle = "#8889";
  pen.fillRect(from, y, to - from, STAGES);
  if (to - from > 60) {
    pen.fillStyle = theme.fg;
    pen.fillText("sums, optimiser", from + 4, y + STAGES / 2);
  }
}

function stages(run, graph, row, y) {
  const pixel = span() / width();
  let i = firstAbove(row.end, view.from);
  while (i < row.task.length && row.start[i] < view.to) {
    const task = row.task[i], x = xOf(row.start[i]), w = xOf(row.end[i]) - x;
    pen.fillStyle = data.modules[graph.module[task]].colours[graph.kind[task]];
    pen.fillRect(x, y, Math.max(w - (w > 3 ? 0.6 : 0), 0.7), STAGES);
    if (view.critical && run.isCritical.has(task)) {
      pen.fillStyle = "#d1105a";
      pen.fillRect(x, y + STAGES - 4, Math.max(w, 0.7), 4);
    }
    const text = graph.microbatch[task] + "." + graph.sub[task];
    if (w > 8 + 6 * text.length) {
      pen.fillStyle = graph.kind[task] ? "#fff" : "#000";
      pen.fillText(text, x + w / 2 - 3 * text.length, y + STAGES / 2);
    }
    // Stages thinner than a pixel: the next one that ends in another pixel.
    i = w < 0.5 ? Math.max(i + 1, firstAbove(row.end, row.end[i] + pixel / 2, i)) : i + 1;
  }
}

function memory(row, y) {
  const points = row.memory, top = Math.max(row.peak, 1);
  const near = row.limit !== null && row.limit < 3 * top, scale = near ? Math.max(top, row.limit) : top;
  const height = n => y + (MEMORY - 2) * (1 - n / scale) + 1;
  const first = Math.max(0, firstAbove(points, view.from, 0, 2) - 1);
  pen.beginPath();
  pen.moveTo(gutter(), y + MEMORY - 1);
  let held = points[2 * first + 1] || 0, x = gutter(), most = held;
  pen.lineTo(x, height(held));
  for (let i = 2 * first + 2; i < points.length && points[i] < view.to; i += 2) {
    const at = Math.max(gutter(), xOf(points[i]));
    // Steps within a pixel are drawn as one, as high as the highest.
    if (at - x < 0.5) { most = Math.max(most, points[i + 1]); held = points[i + 1]; continue; }
    pen.lineTo(x, height(most));
    pen.lineTo(at, height(held));
    held = most = points[i + 1];
    x = at;
    pen.lineTo(at, height(held));
  }
  pen.lineTo(gutter() + width(), height(held));
  pen.lineTo(gutter() + width(), y + MEMORY - 1);
  pen.fillStyle = "#7f8fa366";
  pen.fill();
  if (!near) return;
  pen.strokeStyle = "#d33";
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo(gutter(), height(row.limit));
  pen.lineTo(gutter() + width(), height(row.limit));
  pen.stroke();
  pen.setLineDash([]);
}

// Lines from the stages that a stage needs, and to those that need it; the same stage in the other runs is framed.
function arrows({ run, task }, scrolled) {
  const graph = data.graphs[data.runs[run].graph];
  const box = (r, t) => {
    const place = data.runs[r].place.get(t);
    if (!place) return null;
    const row = rowsNow.all.find(row => row.run === r && row.rank === place[0]), lane = data.runs[r].lanes[place[0]];
    return { from: xOf(lane.start[place[1]]), to: xOf(lane.end[place[1]]), y: row.y - scrolled };
  };
  const frame = (b, w) => {
    pen.strokeStyle = theme.fg;
    pen.lineWidth = w;
    pen.strokeRect(b.from, b.y, Math.max(b.to - b.from, 1), STAGES);
    pen.lineWidth = 1;
  };
  const line = (a, b, colour) => {
    if (!a || !b) return;
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(a.to, a.y + STAGES / 2);
    pen.lineTo(b.from, b.y + STAGES / 2);
    pen.stroke();
    pen.fillStyle = colour;
    pen.fillRect(b.from - 2, b.y + STAGES / 2 - 2, 4, 4);
    pen.lineWidth = 1;
  };
  pen.save();
  pen.beginPath();
  pen.rect(gutter(), AXIS, width(), canvas.clientHeight);
  pen.clip();
  const own = box(run, task);
  if (own) {
    frame(own, 2);
    for (let i = 0; i < graph.deps[task].length; i += 2) line(box(run, graph.deps[task][i]), own, "#d1105a");
    for (const user of graph.users[task]) line(own, box(run, user), "#1673e6");
  }
  const key = name(graph, task);
  data.runs.forEach((other, r) => {
    if (r === run) return;
    const twin = other.graph === data.runs[run].graph ? task : twinOf(data.graphs[other.graph], key);
    const b = twin === undefined ? null : box(r, twin);
    if (b) frame(b, 2);
  });
  pen.restore();
}

function twinOf(graph, key) {
  if (!graph.byName) graph.byName = new Map(graph.kind.map((_, task) => [name(graph, task), task]));
  return graph.byName.get(key);
}

// Labels every 90 pixels at least, at round times, at any zoom.
function axis(w, visible) {
  const rough = span() / Math.max(1, width() / 90), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(k => power * k >= rough);
  pen.fillStyle = theme.bg;
  pen.fillRect(0, 0, w, AXIS);
  pen.fillStyle = pen.strokeStyle = theme.fg;
  const decimals = Math.max(0, -Math.floor(Math.log10(step / unit()[0]) + 1e-9));
  for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
    const x = xOf(t);
    pen.globalAlpha = 0.13;
    pen.fillRect(x, AXIS - 5, 1, visible);
    pen.globalAlpha = 1;
    const text = (t / unit()[0]).toFixed(decimals) + " " + unit()[1];
    pen.fillText(text, Math.min(x + 3, w - 7 * text.length), AXIS / 2);
  }
}

function unit() {
  return [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]].find(([size]) => view.to >= size) || [1, "ns"];
}
