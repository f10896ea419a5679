"use strict";
(function () {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colours = {
    light: ["#1f5fbf", "#c2410c", "#12703f", "#7c3aed", "#57606f"],
    dark: ["#7fb0ff", "#ffb067", "#7fd8a6", "#c9a6ff", "#b3becc"],
  };

  function layout(chart) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    return {
      autosize: true,
      height: 230,
      margin: { l: 44, r: 10, t: 8, b: 34 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--soft"), size: 12 },
      colorway: dark.matches ? colours.dark : colours.light,
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      showlegend: chart.curves.length > 1,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      xaxis: { ...axis, title: { text: "step", standoff: 4 }, rangemode: "tozero" },
      yaxis: { ...axis, tickformat: chart.unit === "share" ? ".0%" : undefined, rangemode: chart.unit === "share" ? "tozero" : "normal" },
    };
  }

  function draw() {
    charts.forEach((chart, number) => {
      const curves = chart.curves.map((curve) => ({
        x: curve.x,
        y: curve.y,
        name: curve.name,
        type: "scatter",
        mode: chart.dots || curve.x.length < 3 ? "lines+markers" : "lines",
        line: { width: 2 },
      }));
      Plotly.react(document.getElementById("chart-" + number), curves, layout(chart), {
        displayModeBar: false,
        responsive: true,
      });
    });
  }

  draw();
  dark.addEventListener("change", draw);
})();
