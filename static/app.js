// The console without htmx is a set of plain forms and links; this file adds htmx, the keyboard, dialogs and clocks.
// No eval and nothing inline: the Content-Security-Policy allows neither.
"use strict";

(() => {
  const me = document.currentScript;
  const root = document.documentElement;
  root.classList.add("js");

  // ---- htmx: from the CDN, or the same bytes from here when it does not answer in time --------------------------
  const PATIENCE = 1500;

  function script(src, integrity) {
    const element = document.createElement("script");
    element.src = src;
    element.async = true;
    if (integrity) {
      element.integrity = integrity;
      element.crossOrigin = "anonymous";
    }
    return element;
  }

  function loadHtmx() {
    const { cdn, integrity, local } = me.dataset;
    const remote = script(cdn, integrity);
    let settled = false;
    const fallBack = () => {
      if (settled || window.htmx) return;
      settled = true;
      clearTimeout(timer);
      // A script that was moved to another document is never executed: a late answer cannot start a second htmx.
      document.implementation.createHTMLDocument("").adoptNode(remote);
      root.dataset.htmx = "local";
      document.head.append(script(local, integrity));
    };
    const timer = setTimeout(fallBack, PATIENCE);
    remote.addEventListener("error", fallBack);
    remote.addEventListener("load", () => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      root.dataset.htmx = "cdn";
    });
    document.head.append(remote);
  }

  // After the page's own load event: a pending script would hold that up for as long as its server is silent.
  if (document.readyState === "complete") loadHtmx();
  else window.addEventListener("load", loadHtmx, { once: true });

  // ---- small helpers --------------------------------------------------------------------------------------------
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const paneLead = () => find("#pane [data-lead]")?.dataset.lead;
  const currentRow = () => find(".row:has(.who[aria-current])");
  const typing = (target) => target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
  const openDialog = () => find("dialog[open]");

  // On a phone the pages are a strip that scrolls: show the one that is open.
  find(".rail .pages [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  function markRow(lead) {
    for (const link of all(".row .who[aria-current]")) link.removeAttribute("aria-current");
    const link = lead && find(`#lead-${CSS.escape(lead)} .who`);
    link?.setAttribute("aria-current", "true");
    link?.closest(".row").scrollIntoView({ block: "nearest" });
    return link;
  }

  // ---- keyboard -------------------------------------------------------------------------------------------------
  let opening = null; // the lead that was asked for and is not shown yet
  let wanted = null; // a key that waits for it

  const store = {
    get: () => { try { return localStorage.getItem("keys"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("keys", value); } catch { /* private window */ } },
  };
  const keysOn = () => store.get() !== "off";

  function move(step) {
    const rows = all(".rows .row");
    if (!rows.length) return;
    const at = rows.indexOf(currentRow());
    const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step];
    if (!next) return;
    const link = find(".who", next);
    opening = next.dataset.lead;
    wanted = null;
    markRow(opening);
    link.focus({ preventScroll: true });
    link.click();
  }

  function press(key) {
    // What is on screen must be what the key acts on: wait for a lead that is still on its way.
    if (opening && window.htmx) {
      wanted = key;
      return true;
    }
    const buttons = all(`[data-key="${key}"]`).filter((button) => !button.disabled);
    const button = buttons.at(-1);
    button?.click();
    return Boolean(button);
  }

  const handlers = {
    j: () => move(1),
    k: () => move(-1),
    x: () => {
      const box = find("input[type=checkbox]", currentRow() ?? document.createElement("i"));
      if (box) { box.checked = !box.checked; countSelected(); }
    },
    "/": () => { find("#q")?.focus(); find("#q")?.select(); },
    "?": () => find("#keys")?.showModal(),
    Enter: () => find("#pane h2")?.focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { key, target } = event;
    if (key === "Escape" && !openDialog()) {
      for (const menu of all("details.more[open], details.ws[open]")) menu.open = false;
      if (typing(target)) target.blur();
      return;
    }
    if (key === " " && target.matches("a[role=button]")) {
      event.preventDefault();
      target.click();
      return;
    }
    if (!keysOn() || typing(target) || openDialog()) return;
    if (key === "Enter" && !target.matches(".row .who, body")) return;
    if (key === "Enter" && target.matches(".who") && currentRow() !== target.closest(".row")) return;
    const handled = handlers[key] ? (handlers[key](), true) : /^[aoeru]$/.test(key) && !event.repeat && press(key);
    if (handled) event.preventDefault();
  });

  // ---- what htmx swaps in ---------------------------------------------------------------------------------------
  let left = paneLead();

  function paneChanged() {
    const lead = paneLead();
    if (left && left !== lead) goodbye(left);
    left = lead;
    opening = null;
    const link = markRow(lead);
    const lost = !document.activeElement || document.activeElement === document.body;
    if (lost && link) link.focus({ preventScroll: true });
    if (lost && !link) find("#pane h2")?.focus({ preventScroll: true });
    const key = wanted;
    wanted = null;
    if (key) setTimeout(() => press(key)); // htmx takes hold of what it swapped in just after this event
  }

  // A pane that follows its run by itself must not take away what somebody is filling in.
  let following = false;
  document.addEventListener("htmx:before:swap", (event) => {
    following = Boolean(event.detail?.ctx?.sourceElement?.matches?.("[hx-trigger^=every]"));
  });

  document.addEventListener("htmx:after:settle", (event) => {
    const { target } = event;
    if (target.id === "dialog-body" && target.childElementCount) {
      const dialog = find("#dialog");
      if (!dialog.open) dialog.showModal();
      find("[autofocus]", dialog)?.focus();
    }
    if (target.id === "pane") {
      if (!following) closeDialog();
      paneChanged();
    }
    if (target.id === "results" || target.closest?.("#results")) { markRow(paneLead()); countSelected(); }
    clocks();
  });

  // A request that never reached the server: say so, and that nothing was changed.
  document.addEventListener("htmx:error", (event) => {
    opening = wanted = null;
    if (event.detail?.ctx?.sourceElement?.matches?.("[hx-trigger^=every]")) return;
    say("No answer", "the server could not be reached; nothing was changed");
  });

  function say(text, detail) {
    const toast = document.createElement("div");
    toast.className = "toast";
    const strong = document.createElement("b");
    strong.textContent = text;
    const what = document.createElement("span");
    what.className = "what";
    what.textContent = detail;
    toast.append(strong, what);
    find("#toasts").replaceChildren(toast);
    setTimeout(() => toast.remove(), 8000);
  }

  function closeDialog() {
    const dialog = find("#dialog");
    if (dialog?.open) dialog.close();
  }

  document.addEventListener("click", (event) => {
    const { target } = event;
    if (target.closest("[data-close]")) target.closest(".toast").remove();
    if (target.closest("[data-dismiss]") && openDialog()) { event.preventDefault(); closeDialog(); }
    const row = target.closest(".row");
    if (row && target.closest(".who")) opening = row.dataset.lead;
    // Browsers without invoker commands.
    const opener = target.closest("[command=show-modal]");
    if (opener && !("commandForElement" in HTMLButtonElement.prototype)) find(`#${opener.getAttribute("commandfor")}`)?.showModal();
    for (const menu of all("details.more[open], details.ws[open]")) if (!menu.contains(target)) menu.open = false;
  });

  find("#dialog")?.addEventListener("close", () => find("#dialog-body").replaceChildren());

  function countSelected() {
    const n = all(".rows input:checked").length;
    const label = find("#n-selected");
    if (label) label.textContent = `${n} selected`;
  }
  document.addEventListener("change", (event) => {
    if (event.target.matches(".rows input")) countSelected();
    if (event.target.id === "keys-on") store.set(event.target.checked ? "on" : "off");
  });
  if (find("#keys-on")) find("#keys-on").checked = keysOn();

  // ---- who is here: say goodbye when the lead is left -----------------------------------------------------------
  function goodbye(lead) {
    const token = find("#bulk input[name=csrf_token]")?.value;
    if (!token || !lead) return;
    const form = new FormData();
    form.append("csrf_token", token);
    navigator.sendBeacon(`/queue/${encodeURIComponent(lead)}/leave`, form);
  }
  window.addEventListener("pagehide", () => goodbye(paneLead()));

  // ---- clocks: relative times, absolute ones in the reader's zone, and the seconds left to undo -----------------
  const units = [[60, "s", "second"], [60, "min", "minute"], [24, "h", "hour"], [365, "d", "day"]];
  function relative(date, long) {
    const seconds = (Date.now() - date) / 1000;
    let amount = Math.abs(seconds);
    if (amount < 1) return long ? "just now" : "now";
    for (const [size, short, full] of units) {
      if (amount < size || full === "day") {
        const n = Math.floor(amount);
        const text = long ? `${n} ${full}${n === 1 ? "" : "s"}` : `${n} ${short}`;
        return seconds < 0 ? `in ${text}` : long ? `${text} ago` : text;
      }
      amount /= size;
    }
    return "";
  }
  const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

  function clocks() {
    for (const element of all("time[datetime]")) {
      const date = new Date(element.dateTime);
      if (Number.isNaN(date.getTime())) continue;
      const text = relative(date, element.dataset.form === "long");
      if (element.textContent !== text) element.textContent = text;
      element.title = absolute.format(date);
    }
  }
  setInterval(clocks, 30_000);
  setInterval(() => {
    for (const element of all("[data-until]")) {
      const seconds = Math.ceil((new Date(element.dataset.until) - Date.now()) / 1000);
      const counter = find("[data-left]", element);
      if (counter && seconds > 0) counter.textContent = seconds;
      if (seconds <= 0) {
        if (element.classList.contains("toast")) { if (!element.contains(document.activeElement)) element.remove(); else find(".inline", element)?.remove(); }
        else element.remove();
      }
    }
    for (const toast of all(".toast:not([data-until])")) {
      toast.dataset.until = new Date(Date.now() + 6000).toISOString();
    }
  }, 500);
  clocks();
  countSelected();
  currentRow()?.scrollIntoView({ block: "nearest" });
})();
