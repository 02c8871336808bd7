// Lines over the last ten minutes, drawn as SVG.

const SPAN_MS = 600_000;
const WIDTH = 600, HEIGHT = 176, TOP = 8, BOTTOM = 18;

function svg(tag, attributes, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

/// From 0 up to a round number that holds every value.
function linear(values) {
  const most = Math.max(1, ...values);
  const decade = 10 ** Math.floor(Math.log10(most));
  const top = [1, 2, 5, 10].map(step => step * decade).find(step => step >= most);
  return { at: value => value / top, rules: [0, top / 2, top] };
}

/// Whole decades around the values.
function logarithmic(values) {
  const some = values.filter(value => value > 0);
  const low = Math.floor(Math.log10(Math.min(1000, ...some)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(1, ...some))));
  const at = value => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
  const step = Math.max(1, Math.ceil((high - low) / 3));
  const rules = [];
  for (let decade = low; decade <= high; decade += step) rules.push(10 ** decade);
  return { at, rules };
}

/// `series`: { name, value: sample => number or null }.
class Chart {
  constructor(element, scale, unit) {
    Object.assign(this, { element, scale, unit, at: null, samples: [], series: [] });
    element.addEventListener("pointermove", event => this.point(event));
    element.addEventListener("pointerleave", () => this.point(null));
  }

  point(event) {
    const box = this.drawing?.getBoundingClientRect();
    this.at = event && box ? (event.clientX - box.left) / box.width : null;
    this.draw(this.samples, this.series);
  }

  draw(samples, series) {
    Object.assign(this, { samples, series });
    const end = samples.length ? samples[samples.length - 1].at_ms : 0;
    const shown = samples.filter(sample => sample.at_ms > end - SPAN_MS && sample.at_ms <= end);
    const x = sample => WIDTH * (1 - (end - sample.at_ms) / SPAN_MS);
    const values = series.flatMap(line => shown.map(line.value)).filter(value => value !== null);
    const scale = this.scale(values);
    const y = value => TOP + (HEIGHT - TOP - BOTTOM) * (1 - scale.at(value));
    const pointed = this.pointed(shown, x);
    const rules = scale.rules.flatMap(rule => [
      svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: y(rule), y2: y(rule) }),
    ]);
    const lines = series.map((line, n) => svg("path", { class: `k${n % 6}`, d: this.path(shown, line, x, y) }));
    const cursor = pointed && this.at !== null
      ? [svg("line", { class: "cursor", x1: x(pointed), x2: x(pointed), y1: TOP, y2: HEIGHT - BOTTOM })] : [];
    const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" }, ...rules, ...lines, ...cursor);
    // Texts are not stretched with the lines.
    const texts = svg("svg", { "aria-hidden": "true" },
      ...scale.rules.map(rule => svg("text", { x: 2, y: `${100 * y(rule) / HEIGHT}%`, dy: rule === scale.rules[0] ? -3 : 11 }, this.unit(rule))),
      svg("text", { x: 0, y: "100%", dy: -4 }, "10 min ago"),
      svg("text", { x: "50%", y: "100%", dy: -4, "text-anchor": "middle" }, "5 min"),
      svg("text", { x: "100%", y: "100%", dy: -4, "text-anchor": "end" }, "now"));
    const stack = make("div", "stack");
    stack.append(plot, texts);
    this.drawing = plot;
    this.element.replaceChildren(stack, this.legend(series, pointed, end));
  }

  /// The sample under the pointer, else the last one.
  pointed(shown, x) {
    if (this.at === null || !shown.length) return shown[shown.length - 1];
    const distance = sample => Math.abs(x(sample) - this.at * WIDTH);
    return shown.reduce((best, sample) => distance(sample) < distance(best) ? sample : best);
  }

  path(shown, line, x, y) {
    let text = "", last = null;
    for (const sample of shown) {
      const value = line.value(sample);
      if (value === null) continue;
      const joins = last !== null && sample.at_ms - last < 30_000;
      // A point of its own is a short dash.
      text += joins ? `L${x(sample).toFixed(1)} ${y(value).toFixed(1)}` : `M${x(sample).toFixed(1)} ${y(value).toFixed(1)}h1`;
      last = sample.at_ms;
    }
    return text;
  }

  legend(series, pointed, end) {
    const legend = make("div", "legend");
    for (const [n, line] of series.entries()) {
      const value = pointed ? line.value(pointed) : null;
      legend.append(make("span", `k${n % 6}`, `${line.name} `, make("em", "", value === null ? "–" : this.unit(value))));
    }
    if (pointed && this.at !== null) legend.append(make("em", "", `${duration((end - pointed.at_ms) / 1000)} ago`));
    return legend;
  }
}
