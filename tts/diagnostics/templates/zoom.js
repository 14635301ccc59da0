// Curves that can be looked at closely: drag over a stretch of steps, double-click to see all. The other axis fits itself to what is seen.
// On the keyboard: + and - zoom, the arrows move, 0 or Escape shows all.
for (const svg of document.querySelectorAll("svg[data-plot]")) {
  const plot = JSON.parse(svg.dataset.plot), width = plot.right - plot.left, height = plot.bottom - plot.top;
  const name = "http://www.w3.org/2000/svg";
  const make = (kind, values, parent) => {
    const element = document.createElementNS(name, kind);
    for (const key in values) element.setAttribute(key, values[key]);
    return parent.appendChild(element);
  };
  // Everything over the axes, with its points as drawn: x and y in the drawing, whatever the scales are.
  const moved = [...svg.querySelectorAll("[id^=curve] path[clip-path], [id^=mark] path[clip-path], [id^=curve] use")].map(element => ({
    element, curve: Boolean(element.closest("[id^=curve]")),
    points: element.localName === "use" ? [[+element.getAttribute("x"), +element.getAttribute("y")]]
      : [...element.getAttribute("d").matchAll(/([ML]) ?(-?[\d.e]+)[ ,](-?[\d.e]+)/g)].map(found => [+found[2], +found[3], found[1]]),
  }));
  const axes = [...svg.querySelectorAll("[id^=xtick], [id^=ytick]")];
  const layer = make("g", {class: "ticks"}, svg.querySelector("[id^=axes]"));
  const box = make("rect", {y: plot.top, height, fill: "currentColor", opacity: 0.12, visibility: "hidden"}, svg);
  let from = plot.left, to = plot.right, begun = null;

  const value = (place, low, high, ends, log) => {
    const [a, b] = log ? ends.map(Math.log10) : ends, found = a + (place - low) / (high - low) * (b - a);
    return log ? 10 ** found : found;
  };
  const step = rough => {
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].find(factor => factor * power >= rough) * power;
  };
  const ticks = (low, high, count) => {
    const apart = step((high - low) / count), found = [];
    for (let tick = Math.ceil(low / apart) * apart; tick <= high + apart * 1e-9; tick += apart) found.push(+tick.toPrecision(12));
    return found;
  };
  const label = (x, y, text, anchor) => {
    make("text", {x, y, "text-anchor": anchor, "font-size": 8.5, fill: "currentColor"}, layer).textContent = text;
  };
  const rule = (x1, x2, y1, y2) => make("line", {x1, x2, y1, y2, stroke: "currentColor", "stroke-opacity": 0.15, "stroke-width": 0.6}, layer);

  function draw() {
    const all = from === plot.left && to === plot.right;
    let low = plot.top, high = plot.bottom;
    if (!all) {
      const seen = moved.filter(part => part.curve).flatMap(part => part.points).filter(point => point[0] >= from && point[0] <= to).map(point => point[1]);
      if (seen.length) {
        const margin = Math.max(0.05 * (Math.max(...seen) - Math.min(...seen)), 0.002 * height);
        [low, high] = [Math.min(...seen) - margin, Math.max(...seen) + margin];
      }
    }
    const across = x => plot.left + (x - from) / (to - from) * width, up = y => plot.top + (y - low) / (high - low) * height;
    for (const {element, curve, points} of moved) {
      const placed = points.map(([x, y, kind]) => [across(x), curve ? up(y) : y, kind]);
      if (element.localName === "use") {
        element.setAttribute("x", placed[0][0]);
        element.setAttribute("y", placed[0][1]);
        element.style.visibility = placed[0][0] < plot.left - 1 || placed[0][0] > plot.right + 1 ? "hidden" : "";
      } else element.setAttribute("d", placed.map(([x, y, kind]) => `${kind} ${x.toFixed(2)} ${y.toFixed(2)}`).join(" "));
    }
    // A line that lies across, such as a limit, moves with the curves; one that stands, such as a mark, keeps its height.
    for (const {element, curve, points} of moved) if (!curve && points.length === 2 && points[0][1] === points[1][1]) {
      const y = up(points[0][1]);
      element.setAttribute("d", `M ${plot.left} ${y} L ${plot.right} ${y}`);
    }
    for (const axis of axes) axis.style.display = all ? "" : "none";
    layer.replaceChildren();
    if (all) return;
    const ends = [from, to].map(x => value(x, plot.left, plot.right, plot.x, false));
    for (const tick of ticks(...ends, 5)) if (Number.isInteger(tick)) {
      const x = plot.left + (tick - ends[0]) / (ends[1] - ends[0]) * width;
      rule(x, x, plot.top, plot.bottom);
      label(x, plot.bottom + 13, tick, "middle");
    }
    const tall = [high, low].map(y => value(y, plot.bottom, plot.top, plot.y, plot.log));
    for (const tick of ticks(...tall, 4)) {
      const part = plot.log ? Math.log10(tick / tall[0]) / Math.log10(tall[1] / tall[0]) : (tick - tall[0]) / (tall[1] - tall[0]);
      const y = plot.bottom - part * height;
      rule(plot.left, plot.right, y, y);
      label(plot.left - 4, y + 3, Math.abs(tick) >= 1e5 || (tick && Math.abs(tick) < 1e-3) ? tick.toExponential(1) : tick, "end");
    }
  }
  function look(a, b) {
    const least = width * 0.002;
    const wide = Math.min(width, Math.max(least, b - a)), start = Math.min(Math.max(plot.left, a), plot.right - wide);
    [from, to] = [start, start + wide];
    draw();
  }
  const here = event => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return Math.min(plot.right, Math.max(plot.left, place.x));
  };
  const back = x => from + (x - plot.left) / width * (to - from);
  const reset = () => look(plot.left, plot.right);
  svg.addEventListener("pointerdown", event => {
    if (event.button || !event.isPrimary) return;
    begun = here(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", event => {
    if (begun === null) return;
    const now = here(event);
    for (const [key, size] of [["x", Math.min(begun, now)], ["width", Math.abs(now - begun)]]) box.setAttribute(key, size);
    box.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerup", event => {
    const now = here(event);
    if (begun !== null && Math.abs(now - begun) > 4) look(...[begun, now].map(back).sort((a, b) => a - b));
    begun = null;
    box.setAttribute("visibility", "hidden");
  });
  svg.addEventListener("pointercancel", () => { begun = null; box.setAttribute("visibility", "hidden"); });
  svg.addEventListener("dblclick", reset);
  svg.addEventListener("keydown", event => {
    const wide = to - from, middle = (from + to) / 2;
    const does = {
      "+": () => look(middle - wide / 4, middle + wide / 4), "-": () => look(middle - wide, middle + wide), "0": reset, Escape: reset,
      ArrowLeft: () => look(from - wide / 4, to - wide / 4), ArrowRight: () => look(from + wide / 4, to + wide / 4),
    }[event.key === "=" ? "+" : event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    does();
  });
  svg.setAttribute("tabindex", "0");
  svg.classList.add("zoomable");
  svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}; plus and minus zoom, arrows move, 0 shows all`);
}
for (const hint of document.querySelectorAll(".zooming")) hint.hidden = false;
