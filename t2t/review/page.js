"use strict";
// Without this the page lacks two comforts: a field that filters the rows, and tables that a click sorts.
const field = document.querySelector("#filter");
const rows = [...document.querySelectorAll("#rows tbody tr")];
const told = document.querySelector("#found");
const filter = () => {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = rows.filter((row) => {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    return !row.hidden;
  });
  told.textContent = words.length ? `${shown.length} of ${rows.length}` : "";
};
if (field) {
  field.closest("p").hidden = false;
  field.addEventListener("input", filter);
}
for (const table of document.querySelectorAll("table.sorts")) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const key = (row) => row.cells[place].dataset.v ?? row.cells[place].textContent;
      const order = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const number = (a, b) => Number(key(a)) - Number(key(b));
      const sorted = [...table.tBodies[0].rows].sort(head.dataset.n === undefined ? order : number);
      table.tBodies[0].append(...(down ? sorted.reverse() : sorted));
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
