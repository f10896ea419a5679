"use strict";
// Light or dark: as the system says, unless the reader chose. Runs before the page is drawn, so that it never flashes.
(function () {
  const KEY = "rba-bench-colours";

  function stored() {
    try {
      return localStorage.getItem(KEY) || "";
    } catch {
      return ""; // a browser may keep nothing for pages on a disk
    }
  }

  function apply(choice) {
    if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
    else delete document.documentElement.dataset.theme;
  }

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = document.documentElement.dataset.theme ?? "";
    select.closest("label").hidden = false;
    select.addEventListener("change", () => {
      apply(select.value);
      try {
        localStorage.setItem(KEY, select.value);
      } catch {
        // the choice lasts as long as the page
      }
    });
  });
})();
