// Wheel, mouse, fingers and keys.
const pointers = new Map();
let dragged = false;

// The stage or bubble at a place of the page.
function at(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top + chart.scrollTop;
  if (x < gutter() || event.clientY - box.top < AXIS) return null;
  const row = rowsNow.all.find(row => row.rank >= 0 && y >= row.y && y < row.y + row.height);
  if (!row) return null;
  const lane = data.runs[row.run].lanes[row.rank], t = timeAt(x);
  const found = { run: row.run, rank: row.rank, time: t };
  if (y > row.y + STAGES) return { ...found, memory: true };
  const i = firstAbove(lane.end, t);
  if (i < lane.task.length && lane.start[i] <= t) return { ...found, task: lane.task[i], index: i };
  const k = 3 * firstAbove(lane.waitEnds, t);
  if (k < lane.bubbles.length && lane.bubbles[k] <= t) return { ...found, bubble: k };
  return null;
}

function describe(found) {
  const run = data.runs[found.run], lane = run.lanes[found.rank], graph = data.graphs[run.graph];
  if (found.memory) {
    const i = firstAbove(lane.memory, found.time, 0, 2) - 1;
    return "rank " + found.rank + " holds " + bytes(lane.memory[2 * i + 1] || 0) + "\npeak " + bytes(lane.peak)
      + (lane.limit === null ? ", no limit" : ", limit " + bytes(lane.limit));
  }
  if (found.bubble !== undefined) {
    const [from, to, cause] = lane.bubbles.slice(found.bubble, found.bubble + 3), c = data.causes[cause];
    return "bubble of " + time(to - from) + ": " + c.name + "\n" + c.meaning;
  }
  const t = found.task, began = lane.start[found.index], took = lane.end[found.index] - began;
  const lines = [
    KINDS[graph.kind[t]] + " of " + data.modules[graph.module[t]].name + ", segment " + graph.segment[t],
    "microbatch " + graph.microbatch[t] + ", sub-microbatch " + graph.sub[t] + ", task " + t,
    "strategy " + graph.strategy[t] + (graph.bytes[t] ? ", " + bytes(graph.bytes[t]) : ""),
    "runs " + time(began) + " to " + time(began + took) + ", " + time(took),
  ];
  const late = began - graph.planned_start[t], longer = took / graph.planned[t] - 1;
  if (Math.abs(late) > 1e3 || Math.abs(longer) > 1e-3) {
    lines.push("planned " + time(graph.planned[t]) + " from " + time(graph.planned_start[t])
      + ": " + (longer >= 0 ? "+" : "") + (100 * longer).toFixed(0) + " % long, " + time(Math.abs(late)) + (late >= 0 ? " late" : " early"));
  }
  lines.push("needs " + graph.deps[t].length / 2 + ", needed by " + graph.users[t].length
    + (run.isCritical.has(t) ? "; on the critical path" : ""));
  return lines.join("\n");
}

function hover(event) {
  const found = at(event);
  tip.hidden = !found;
  if (found) {
    tip.textContent = describe(found);
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(2, Math.min(event.clientX + 14, innerWidth - box.width - 4)) + "px";
    tip.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18) + "px";
  }
  const before = view.hovered;
  view.hovered = found && found.task !== undefined ? found : null;
  if ((before && before.task) !== (view.hovered && view.hovered.task) || (before && before.run) !== (view.hovered && view.hovered.run)) draw();
}

canvas.addEventListener("wheel", event => {
  tip.hidden = true;
  const x = event.clientX - canvas.getBoundingClientRect().left;
  if (event.shiftKey) show(view.from + event.deltaY / width() * span(), span());
  else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) show(view.from + event.deltaX / width() * span(), span());
  else zoom(Math.exp(event.deltaY / 400), x);
  event.preventDefault();
}, { passive: false });

canvas.addEventListener("pointerdown", event => {
  pointers.set(event.pointerId, event);
  canvas.setPointerCapture(event.pointerId);
  dragged = false;
});
canvas.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId);
  if (!before) return hover(event);
  pointers.set(event.pointerId, event);
  const others = [...pointers.values()].filter(p => p.pointerId !== event.pointerId);
  if (others.length) {
    // Two fingers: the distance between them is the zoom.
    const left = canvas.getBoundingClientRect().left, other = others[0].clientX;
    const was = Math.abs(before.clientX - other), now = Math.abs(event.clientX - other);
    if (was > 8 && now > 8) zoom(was / now, (event.clientX + other) / 2 - left);
  } else {
    const moved = event.clientX - before.clientX;
    if (event.pointerType === "mouse") chart.scrollTop -= event.clientY - before.clientY;
    show(view.from - moved / width() * span(), span());
  }
  dragged = true;
  tip.hidden = true;
});
for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, event => {
  pointers.delete(event.pointerId);
  if (type === "pointerup" && !dragged) {
    const found = at(event);
    view.selected = found && found.task !== undefined ? found : null;
    hover(event);
    draw();
  }
});
canvas.addEventListener("pointerleave", () => { tip.hidden = true; view.hovered = null; draw(); });
canvas.addEventListener("dblclick", () => show(0, whole));

const middle = () => gutter() + width() / 2;
const toggle = id => { const box = document.getElementById(id); box.checked = !box.checked; view[id] = box.checked; draw(); };
const dark = () => { document.documentElement.classList.toggle("dark"); draw(); };
const keys = {
  "+": () => zoom(0.7, middle()), "=": () => zoom(0.7, middle()), "-": () => zoom(1.4, middle()), "0": () => show(0, whole),
  ArrowLeft: () => show(view.from - span() / 10, span()), ArrowRight: () => show(view.from + span() / 10, span()),
  ArrowUp: () => { chart.scrollTop -= 60; }, ArrowDown: () => { chart.scrollTop += 60; },
  b: () => toggle("bubbles"), m: () => toggle("memory"), c: () => toggle("critical"), d: dark,
  Escape: () => { view.selected = null; draw(); },
};
addEventListener("keydown", event => {
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  keys[event.key]();
  event.preventDefault();
});
for (const id of ["bubbles", "memory", "critical"]) {
  document.getElementById(id).addEventListener("change", event => { view[id] = event.target.checked; draw(); });
}
document.getElementById("fit").onclick = () => show(0, whole);
document.getElementById("in").onclick = () => zoom(0.7, middle());
document.getElementById("out").onclick = () => zoom(1.4, middle());
document.getElementById("theme").onclick = dark;
chart.addEventListener("scroll", draw);
addEventListener("resize", draw);
if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.classList.add("dark");
draw();
