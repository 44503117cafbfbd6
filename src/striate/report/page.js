// Conveniences only: the page reads fully without them.

// Older browsers do not know `command="show-modal"` yet.
if (!("commandForElement" in HTMLButtonElement.prototype)) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[commandfor]");
    if (button) document.getElementById(button.getAttribute("commandfor")).showModal();
  });
}
if (!("closedBy" in HTMLDialogElement.prototype)) {
  document.addEventListener("click", ({ target }) => {
    if (target instanceof HTMLDialogElement) target.close();
  });
}

// An image enlarges on click, or with Enter, to the size of the window.
const zoomed = document.createElement("dialog");
zoomed.className = "zoom";
zoomed.addEventListener("click", () => zoomed.close());
document.body.append(zoomed);
const zoom = (pic) => {
  const large = pic.cloneNode();
  const [width, height] = [pic.offsetWidth, pic.offsetHeight];
  const times = Math.min((0.94 * innerWidth - 40) / width, (0.86 * innerHeight - 60) / height);
  large.style.width = width * Math.max(1, times) + "px";
  const words = document.createElement("p");
  words.textContent = pic.getAttribute("aria-label");
  zoomed.replaceChildren(large, words);
  zoomed.showModal();
};
for (const pic of document.querySelectorAll(".gallery .pic")) {
  if (pic.closest("button, dialog")) continue;
  pic.classList.add("zoomable");
  pic.tabIndex = 0;
  pic.addEventListener("click", () => zoom(pic));
  pic.addEventListener("keydown", (event) => event.key === "Enter" && zoom(pic));
}

// A matrix says in words what the pointer or the focus is on, and lights its names.
for (const matrix of document.querySelectorAll(".matrix")) {
  const readout = matrix.querySelector(".readout");
  const idle = readout.textContent;
  const heads = matrix.querySelectorAll("thead th");
  const point = ({ target }) => {
    const button = target.closest("td button");
    for (const head of matrix.querySelectorAll(".here")) head.classList.remove("here");
    readout.textContent = button ? button.getAttribute("aria-label") : idle;
    if (!button) return;
    const cell = button.parentElement;
    cell.parentElement.cells[0].classList.add("here");
    heads[cell.cellIndex - 1].classList.add("here");
  };
  matrix.addEventListener("pointerover", point);
  matrix.addEventListener("focusin", point);
}

// Arrow keys walk a matrix from cell to cell that counted something.
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const cell = event.target.closest(".matrix td");
  if (!step || !cell) return;
  const rows = cell.closest("table").rows;
  let [x, y] = [cell.cellIndex, cell.parentElement.rowIndex];
  for (;;) {
    [x, y] = [x + step[0], y + step[1]];
    const next = rows[y]?.cells[x];
    if (!next) return;
    const button = next.querySelector("button");
    if (button) {
      event.preventDefault();
      button.focus();
      return;
    }
  }
});

// A chart's key shows the values nearest to the pointer, else those at the mark.
const spell = (value, percent) => {
  const text = percent ? (100 * value).toFixed(2) + " %" : String(+value.toPrecision(4));
  return text.replace("-", "−");
};
for (const chart of document.querySelectorAll("svg.chart")) {
  const series = JSON.parse(chart.dataset.points);
  const outputs = [...chart.parentElement.querySelectorAll(".legend output")];
  const last = outputs.map((output) => output.textContent);
  const at = chart.parentElement.querySelector(".legend .at");
  const axis = chart.querySelector("text.end");
  const label = axis.textContent;
  const cursor = chart.querySelector(".cursor");
  const percent = "percent" in chart.dataset;
  const nearest = (points, place) =>
    points.reduce((best, p) => (Math.abs(p[0] - place) < Math.abs(best[0] - place) ? p : best));
  chart.addEventListener("pointermove", (event) => {
    const style = getComputedStyle(chart);
    const box = chart.getBoundingClientRect();
    const left = parseFloat(style.paddingLeft);
    const width = box.width - left - parseFloat(style.paddingRight);
    const all = series.flat();
    if (!all.length) return;
    const [place, x] = nearest(all, (event.clientX - box.left - left) / width);
    cursor.setAttribute("x1", 100 * place + "%");
    cursor.setAttribute("x2", 100 * place + "%");
    chart.classList.add("read");
    if (at) at.hidden = true;
    axis.textContent = `${label} ${spell(x, false)}`.trim();
    series.forEach((points, i) => {
      if (points.length) outputs[i].textContent = spell(nearest(points, place)[2], percent);
    });
  });
  chart.addEventListener("pointerleave", () => {
    chart.classList.remove("read");
    if (at) at.hidden = false;
    axis.textContent = label;
    outputs.forEach((output, i) => (output.textContent = last[i]));
  });
}

// A box that is too narrow for its table says so; its edge fades until the last column.
for (const box of document.querySelectorAll(".block > .scroll")) {
  const show = () => {
    box.parentElement.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
    box.parentElement.classList.toggle("end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 2);
  };
  new ResizeObserver(show).observe(box);
  box.addEventListener("scroll", show, { passive: true });
  show();
}

// A click on a heading sorts a table: upwards, downwards, and as it was.
const UNITS = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
const sortValue = (text) => {
  const match = /^[<>≤≥]?\s*(-?[\d,]*\.?\d+(?:e-?\d+)?)(?:\s*([kKMGT]?i?B)\b)?/.exec(text.replaceAll("−", "-"));
  return match ? parseFloat(match[1].replaceAll(",", "")) * (UNITS[match[2]] ?? 1) : null;
};
const compare = (a, b) => {
  if (!a || !b) return a ? -1 : b ? 1 : 0; // empty cells come last
  const [x, y] = [sortValue(a), sortValue(b)];
  return x !== null && y !== null ? x - y : a.localeCompare(b, undefined, { numeric: true });
};
for (const sheet of document.querySelectorAll("table.sheet")) {
  const body = sheet.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 3) continue;
  const heads = [...sheet.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { null: "ascending", ascending: "descending" }[head.getAttribute("aria-sort")];
      for (const each of heads) each.removeAttribute("aria-sort");
      const sorted = [...rows];
      if (next) {
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const text = (row) => row.cells[column]?.textContent.trim() ?? "";
        sorted.sort((a, b) => (text(a) && text(b) ? sign : 1) * compare(text(a), text(b)));
      }
      body.append(...sorted);
    });
  });
}

// The contents mark the section that is being read.
const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
const mark = () => {
  const sections = [...document.querySelectorAll("main > section")];
  const line = innerHeight / 3;
  const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
  const read = end && scrollY > 0 ? sections.at(-1) : sections.findLast((s) => s.getBoundingClientRect().top < line);
  for (const [id, link] of links) {
    if (read?.id === id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
};
addEventListener("scroll", mark, { passive: true });
mark();
