// Review by mouse and by keyboard: the queue, and one case. What is done goes through the JSON API; the page is
// then loaded anew, so that what stands there is what the store says.

import { ask, me, words } from "./api.js";

const said = document.querySelector("#said");
const say = (text) => { if (said) said.textContent = text; };
const help = document.querySelector("#help");
for (const one of document.querySelectorAll(".me, .case-bar, .verdict, .next-case, [data-level], [data-open-case]")) one.hidden = false;
for (const button of document.querySelectorAll("[data-help]")) button.addEventListener("click", () => help.showModal());

async function wish(caseId, what, more) {
  try {
    await ask(`/cases/${encodeURIComponent(caseId)}/${what}`, { who: me(), ...more });
    location.reload();
  } catch (error) {
    say(words(error));
  }
}

// ---- one exchange: send it to review ----

for (const button of document.querySelectorAll("[data-open-case]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const made = await ask(`/exchanges/${encodeURIComponent(button.dataset.openCase)}/case`, { who: me(false) });
      location.assign(`/spex/cases/${encodeURIComponent(made.id)}`);
    } catch (error) {
      button.textContent = words(error);
    }
  });
}

// ---- one case ----

const head = document.querySelector("#case");
const verdict = document.querySelector("form.verdict");

for (const button of document.querySelectorAll("[data-wish]")) {
  button.addEventListener("click", () => wish(head.dataset.case, button.dataset.wish));
}

if (verdict) {
  const told = verdict.querySelector(".said");
  const send = async (what, more) => {
    try {
      await ask(`/cases/${encodeURIComponent(head.dataset.case)}/${what}`, { who: me(), ...more });
      location.reload();
    } catch (error) {
      told.textContent = words(error);
    }
  };
  const note = () => verdict.elements.note.value.trim();
  verdict.addEventListener("submit", (event) => {
    event.preventDefault();
    send("verdict", { label: verdict.elements.label.value, ...(note() ? { note: note() } : {}) });
  });
  verdict.querySelector("[data-note]").addEventListener("click", () => {
    if (note()) send("note", { note: note() }); else verdict.elements.note.focus();
  });
}

for (const button of document.querySelectorAll("[data-level]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await ask(`/exchanges/${encodeURIComponent(button.dataset.exchange)}/explain`, { segmenter: button.dataset.level });
      location.assign(location.pathname);
    } catch (error) {
      document.querySelector(".levels .said").textContent = words(error);
      button.disabled = false;
    }
  });
}

// ---- the queue ----

const rows = [...document.querySelectorAll("#cases tr")];
const next = document.querySelector("[data-next]");
let at = -1;

function go(to) {
  if (!rows[to]) return;
  at = to;
  rows[at].querySelector("a").focus();
}

for (const [place, row] of rows.entries()) row.addEventListener("focusin", () => { at = place; });

async function claimNext() {
  try {
    const given = await ask("/review/next", { who: me(), queue: next.dataset.next });
    location.assign(`/spex/cases/${encodeURIComponent(given.id)}`);
  } catch (error) {
    say(words(error));
  }
}

next?.addEventListener("click", claimNext);

// ---- keys: never while somebody writes, and never with a modifier ----

const groups = () => [...document.querySelectorAll(".pair summary")].filter((one) => one.checkVisibility?.() ?? true);

function step(by) {
  if (rows.length) return go(at < 0 ? 0 : at + by);
  const all = groups();
  const to = all[Math.max(0, all.indexOf(document.activeElement) + (all.includes(document.activeElement) ? by : 0))];
  to?.focus();
  to?.scrollIntoView({ block: "nearest" });
}

const caseNow = () => head?.dataset.case ?? rows[at]?.dataset.case;
const keys = {
  j: () => step(1),
  k: () => step(-1),
  c: () => caseNow() && wish(caseNow(), "claim"),
  r: () => caseNow() && wish(caseNow(), "release"),
  n: () => next && claimNext(),
  v: () => (verdict?.querySelector("input:checked") ?? verdict?.querySelector("input"))?.focus(),
  t: () => document.querySelector("[data-key='t']")?.click(),
  e: () => document.querySelector("[data-key='e']")?.click(),
  q: () => head && location.assign("/spex/review"),
  "?": () => help?.showModal(),
};

if (help) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const isLabel = event.target.matches("input[type='radio']");
    if (event.target.matches("input, select, textarea") && !isLabel) return;
    if (isLabel && /^[1-9]$/.test(event.key)) {
      const label = verdict.querySelectorAll("input[type='radio']")[Number(event.key) - 1];
      if (label) { label.checked = true; label.focus(); }
      return;
    }
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
