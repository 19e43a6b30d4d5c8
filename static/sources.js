// Inbound webhooks: copying an address, and filling in a path by a click on a value of the last request. Both are extras
// of a page that works without them.
"use strict";

(() => {
  document.addEventListener("click", async (event) => {
    const copier = event.target.closest("[data-copy]");
    if (copier) {
      const before = copier.innerHTML;
      const done = await copy(copier.dataset.copy);
      copier.textContent = done ? "Copied" : "Could not copy";
      setTimeout(() => { copier.innerHTML = before; }, 1600);
      return;
    }
    const leaf = event.target.closest("[data-tree] [data-path]");
    if (leaf) fill(leaf.dataset.path);
  });

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // no clipboard without https: the older way
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "away";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  const form = document.querySelector("[data-mapping]");
  if (!form) return;
  const inputs = () => [...form.querySelectorAll("input[name^=map-]")];
  let last = null;
  mark(inputs().find((input) => !input.value) ?? inputs()[0]);

  function mark(input) {
    last?.closest(".map-row").classList.remove("aim");
    last = input;
    last?.closest(".map-row").classList.add("aim");
  }

  form.addEventListener("focusin", (event) => {
    if (event.target.matches("input[name^=map-]")) mark(event.target);
  });

  // Where something stands already the path is joined to it when a + or a | is waiting for one, else takes its place.
  function fill(path) {
    if (!last) return;
    const joined = /[+|]\s*$/.test(last.value);
    last.value = joined ? `${last.value.trimEnd()} ${path}` : path;
    last.focus();
    last.dispatchEvent(new Event("input", { bubbles: true }));
  }
})();
