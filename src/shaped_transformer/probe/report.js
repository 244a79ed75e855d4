"use strict";
// Draws the figures of the page. The number of columns follows the width; the arrow keys step through the layers.
const figures = JSON.parse(document.getElementById("figures").textContent);
const columns = (width) => (width < 640 ? 0 : width < 1040 ? 1 : 2);

for (const [name, figure] of Object.entries(figures)) {
  const place = document.getElementById(name);
  const config = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  let shown = null;
  const draw = () => {
    const wanted = columns(place.clientWidth);
    if (wanted === shown) return;
    shown = wanted;
    Plotly.react(place, figure.data, structuredClone(figure.layouts[wanted]), config);
  };
  const start = () => {
    if (shown !== null) return;
    draw();
    new ResizeObserver(draw).observe(place);
    if (figure.readings) step(place, figure);
  };
  // What is out of sight is drawn when it comes near, so that a large page opens fast.
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    observer.disconnect();
    start();
  }, { rootMargin: "400px" }).observe(place);
  addEventListener("beforeprint", start);
}

function step(place, figure) {
  const reading = document.getElementById(place.id + "-reading");
  const lines = figure.data.flatMap((trace, i) => (trace.meta === "measured" ? [i] : []));
  const last = figure.readings.length - 1;
  let layer = -1;
  place.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: layer + 1, ArrowLeft: layer - 1, Home: 0, End: last };
    if (event.key === "Escape") {
      layer = -1;
      reading.textContent = "";
      Plotly.Fx.unhover(place);
    }
    if (!(event.key in moves)) return;
    event.preventDefault();
    layer = Math.min(Math.max(moves[event.key], 0), last);
    reading.textContent = figure.readings[layer];
    const there = lines.filter((i) => figure.data[i].y[layer] !== null);
    Plotly.Fx.hover(
      place,
      there.map((i) => ({ curveNumber: i, pointNumber: layer })),
      there.map((i) => figure.data[i].xaxis.replace(/^x1$/, "x") + figure.data[i].yaxis.replace(/^y1$/, "y")),
    );
  });
}
