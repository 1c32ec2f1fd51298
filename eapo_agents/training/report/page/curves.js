"use strict";
// Metrics over training: a panel a metric, a line a method, a band and thin lines for its seeds.

const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2",
  "#7f7f7f", "#bcbd22", "#17becf"];
const FEW_POINTS = 20;
const NUM_PANELS = 9;

const colour = (method) => COLOURS[method % COLOURS.length];

// Plotly reads some tags in names.
const plain = (text) => visible(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

class Curves {
  constructor() {
    this.range = null;
    for (const id of ["bands", "seeds"]) byId(id).addEventListener("change", () => this.draw());
    byId("whole").addEventListener("click", () => this.zoom(null));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(summary) {
    this.summary = summary;
    this.showMethods();
    const titles = new Map(summary.panels.map(({ metric, title }) => [metric, title]));
    const options = Object.keys(summary.curves).map((name) => [name, titles.get(name) ?? name]);
    options.sort(([, one], [, other]) => one.localeCompare(other));
    const wanted = summary.panels.map(({ metric }) => metric).filter((one) => one in summary.curves);
    const rest = options.map(([name]) => name).filter((name) => !wanted.includes(name));
    const panels = byId("panels");
    while (panels.childElementCount < Math.min(NUM_PANELS, options.length)) {
      const select = element("select", { "aria-label": "metric" });
      fill(select, options);
      select.value = [...wanted, ...rest][panels.childElementCount];
      select.addEventListener("change", () => this.draw());
      panels.append(element("div", { class: "panel" }, select, element("div", { class: "plot" })));
    }
    for (const select of panels.querySelectorAll("select")) fill(select, options);
    this.draw();
  }

  showMethods() {
    const labels = byId("methods");
    this.summary.methods.forEach((label, number) => {
      if (labels.querySelector(`[value="${number}"]`)) return;
      const box = element("input", { type: "checkbox", value: number, checked: "" });
      box.addEventListener("change", () => this.draw());
      const mark = element("span", { class: "mark", style: `background: ${colour(number)}` });
      labels.append(element("label", {}, box, mark, label));
    });
  }

  draw() {
    if (!window.Plotly || byId("training").hidden) return;
    for (const panel of byId("panels").children) this.drawPanel(panel);
  }

  drawPanel(panel) {
    const plot = panel.querySelector(".plot");
    const style = getComputedStyle(panel);  // colours as Plotly can read them
    const grid = style.borderTopColor;
    const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid };
    const layout = {
      height: 230,
      margin: { l: 44, r: 12, t: 8, b: 38 },
      font: { color: style.color, size: 11, family: style.fontFamily },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false,
      dragmode: "zoom",
      hovermode: "x unified",
      hoverlabel: { bgcolor: style.backgroundColor },
      xaxis: { ...axis, title: { text: "training step" }, autorange: !this.range,
        ...(this.range && { range: this.range }) },
      yaxis: { ...axis, rangemode: "tozero" },
    };
    const config = { displaylogo: false, responsive: true, displayModeBar: false };
    const first = !plot.classList.contains("js-plotly-plot");
    window.Plotly.react(plot, this.traces(panel.querySelector("select").value), layout, config);
    if (first) {
      plot.on("plotly_relayout", (change) => this.zoomed(change));
      plot.on("plotly_doubleclick", () => this.zoom(null));
    }
  }

  zoomed(change) {
    const [low, high] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (low !== undefined) this.zoom([low, high]);
  }

  zoom(range) {
    this.range = range;
    this.draw();
  }

  traces(metric) {
    const { methods, curves } = this.summary;
    return methods.flatMap((label, number) => {
      const box = byId("methods").querySelector(`[value="${number}"]`);
      const { mean, band, seeds } = curves[metric][number];
      if (!box.checked || !mean.length) return [];
      const drawn = [];
      const quiet = { hoverinfo: "skip", mode: "lines" };
      if (byId("bands").checked && band.length) {
        const [steps, lows, highs] = band;
        drawn.push({ ...quiet, x: [...steps, ...steps.toReversed()],
          y: [...highs, ...lows.toReversed()], fill: "toself", line: { width: 0 },
          fillcolor: `${colour(number)}33` });
      }
      if (byId("seeds").checked) {
        for (const [x, y] of seeds) {
          drawn.push({ ...quiet, x, y, opacity: 0.45, line: { width: 1, color: colour(number) } });
        }
      }
      const mode = mean[0].length < FEW_POINTS ? "lines+markers" : "lines";
      drawn.push({ x: mean[0], y: mean[1], name: plain(label), mode, line: { color: colour(number) },
        marker: { size: 5 }, hovertemplate: "%{y:.4g}" });
      return drawn;
    });
  }
}
