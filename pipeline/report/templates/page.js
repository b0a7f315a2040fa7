(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const hovers = JSON.parse(document.getElementById("hovers").textContent);
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { ink: of("--ink"), line: of("--line"), paper: of("--card") };
  };
  const scheme = () => {
    const { ink, line, paper } = colours();
    return {
      "font.color": ink, "font.family": "inherit", "font.size": 12,
      "xaxis.gridcolor": line, "yaxis.gridcolor": line, "xaxis.linecolor": line, "yaxis.linecolor": line,
      "hoverlabel.bgcolor": paper, "hoverlabel.font.color": ink, "hoverlabel.bordercolor": line,
    };
  };
  const drawn = new Set();
  const draw = (place) => {
    if (drawn.has(place)) return;
    drawn.add(place);
    const figure = figures[place.dataset.figure];
    if (place.clientWidth < 500 && figure.layout.showlegend && figure.data.length > 8) figure.layout.showlegend = false;
    Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displayModeBar: false })
      .then(() => Plotly.relayout(place, scheme()))
      .then(() => { if (place.closest(".map")) follow(place); });
  };
  const follow = (place) => {
    const box = document.getElementById("hover");
    place.on("plotly_hover", (event) => {
      const point = event.points[0];
      const picture = hovers[point.customdata];
      if (!picture) { box.hidden = true; return; }
      box.querySelector("img").src = "data:image/jpeg;base64," + picture;
      box.querySelector("span").textContent = point.text;
      // Away from the pointer.
      const right = point.xaxis.l2p(point.x) > point.xaxis._length / 2;
      box.style.right = right ? "auto" : ".6rem";
      box.style.left = right ? "4rem" : "auto";
      box.hidden = false;
    });
    place.on("plotly_unhover", () => { box.hidden = true; });
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "400px" });
  const places = document.querySelectorAll(".chart");
  places.forEach((place) => watcher.observe(place));
  addEventListener("beforeprint", () => places.forEach(draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    drawn.forEach((place) => Plotly.relayout(place, scheme())));
})();
