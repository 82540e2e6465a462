"use strict";

// Tables: a click on a heading sorts by it, a second one the other way round; cells without a value stay last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const first = heading.dataset.first || "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [left, right] = [key(a), key(b)];
      if (left === "" || right === "") return (left === "") - (right === "");
      const [x, y] = [Number(left), Number(right)];
      return sign * (Number.isNaN(x) || Number.isNaN(y) ? left.localeCompare(right, "en") : x - y);
    });
    table.tBodies[0].append(...rows);
  });
}

// A link to a picture opens what it lies in.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();

// On paper nothing can be opened.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details[data-print]")) part.open = true;
});

// The 3-D viewer: its program and the volumes are read only now.
for (const button of document.querySelectorAll("button[data-volumes]")) {
  button.addEventListener("click", async () => {
    const place = button.nextElementSibling;
    try {
      button.disabled = true;
      await openViewer(place, JSON.parse(document.getElementById(button.dataset.volumes).textContent));
      button.hidden = true;
    } catch (error) {
      button.disabled = false;
      place.hidden = false;
      place.textContent = `The 3-D viewer needs WebGL 2, which this browser does not offer (${error.message}).`;
    }
  });
}

function loadNiivue() {
  if (!window.niivue) {
    const script = document.createElement("script");
    script.textContent = document.getElementById("viewer-program").textContent;
    document.head.append(script);
  }
  return window.niivue;
}

async function openViewer(place, data) {
  const { Niivue, NVImage } = loadNiivue();
  const canvas = place.querySelector("canvas");
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("no context");
  place.hidden = false;
  const viewer = new Niivue({
    backColor: [0, 0, 0, 1], isRadiologicalConvention: true, sagittalNoseLeft: true, dragAndDropEnabled: false,
    multiplanarShowRender: 1, crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 0.2, logLevel: "error", isColorbar: false, showLegend: false,
    scrollRequiresFocus: true, isNearestInterpolation: false,
  });
  await viewer.attachToCanvas(canvas);
  const colours = {
    R: data.colours.map((c) => c[0]), G: data.colours.map((c) => c[1]), B: data.colours.map((c) => c[2]),
    A: data.colours.map((_, k) => (k ? 255 : 0)), I: data.colours.map((_, k) => k), labels: data.classes,
  };
  viewer.addVolume(await NVImage.loadFromBase64({ base64: data.image, name: "image.nii.gz", colormap: "gray" }));
  const select = place.querySelector("select");
  const opacity = place.querySelector("input");
  async function show() {
    if (viewer.volumes.length > 1) viewer.removeVolume(viewer.volumes[1]);
    const label = await NVImage.loadFromBase64({ base64: data.labels[select.value], name: "label.nii.gz" });
    label.setColormapLabel(colours);
    viewer.addVolume(label);
    viewer.setOpacity(1, Number(opacity.value));
  }
  select.addEventListener("change", show);
  opacity.addEventListener("input", () => viewer.setOpacity(1, Number(opacity.value)));
  await show();
  place.dataset.ready = "true";
}
