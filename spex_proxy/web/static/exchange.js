// One exchange: asking for an explanation, following and cancelling its job, verifying.
// Talks to the JSON API; the job's card itself is rendered by the server and only put in place here.

import { API, ask, words } from "./api.js";

const POLL_MS = 2000;
const HERE = location.pathname;

// ---- the job's card: shown again whenever something happened, by events if they come, else by asking ----

const id = document.querySelector("[data-explain]")?.dataset.explain ?? HERE.split("/").pop();

async function redraw() {
  const answer = await fetch(`${exchangePage()}/job`);
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#job");
  const old = document.querySelector("#job");
  if (!fresh || !old) return;
  if (fresh.dataset.state === "done") return location.reload();
  const had = old.contains(document.activeElement);
  if (fresh.dataset.live === undefined && old.dataset.live !== undefined) return location.reload();
  old.replaceWith(fresh);
  ready(fresh);
  if (had) fresh.querySelector("button:not([hidden])")?.focus();
}

function exchangePage() {
  return `/spex/exchanges/${document.querySelector("#job")?.dataset.exchange ?? encodeURIComponent(id)}`;
}

function ready(card) {
  for (const button of card.querySelectorAll("[data-act]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await ask(`/jobs/${encodeURIComponent(card.dataset.job)}/${button.dataset.act}`);
      } catch { /* it had ended already: the page will say how */ }
      location.reload();
    });
  }
}

function follow(card) {
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; redraw().catch(() => {}); }, 250);
  };
  const poll = setInterval(() => { if (!document.hidden) soon(); }, 5 * POLL_MS);
  const events = new EventSource(`${API}/jobs/${encodeURIComponent(card.dataset.job)}/events`);
  events.addEventListener("progress", soon);
  events.addEventListener("end", () => { events.close(); clearInterval(poll); soon(); });
  events.addEventListener("error", () => {
    if (events.readyState !== EventSource.CLOSED) return;
    clearInterval(poll);
    setInterval(() => { if (!document.hidden) soon(); }, POLL_MS);
  });
}

const card = document.querySelector("#job");
if (card) {
  ready(card);
  if (card.dataset.live !== undefined) follow(card);
}

// ---- explain now ----

for (const form of document.querySelectorAll("form[data-explain]")) {
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wish = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
    for (const name of ["budget", "seed"]) if (wish[name]) wish[name] = Number(wish[name]);
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await ask(`/exchanges/${encodeURIComponent(form.dataset.explain)}/explain`, wish);
      location.assign(`/spex/exchanges/${encodeURIComponent(form.dataset.explain)}`);
    } catch (error) {
      form.querySelector(".said").textContent = words(error);
      button.disabled = false;
    }
  });
}

// ---- verify ----

for (const box of document.querySelectorAll("[data-verify]")) {
  const button = box.querySelector("button");
  const result = box.querySelector(".verify-result");
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    result.textContent = "Checking…";
    try {
      const found = await ask(`/explanations/${encodeURIComponent(box.dataset.verify)}/verify`);
      const list = document.createElement("ul");
      list.className = "checks";
      for (const check of found.checks) {
        const line = document.createElement("li");
        if (check.skipped) line.className = "is-skipped";
        else if (!check.passed) line.className = "is-failed";
        const about = document.createElement("div");
        const detail = document.createElement("span");
        detail.textContent = ` ${check.detail}`;
        about.append(check.name, detail);
        line.append(about);
        list.append(line);
      }
      const verdict = document.createElement("strong");
      verdict.textContent = found.checks.every((check) => check.passed)
        ? "This explanation follows from its evidence."
        : "This explanation does NOT follow from the evidence that is stored with it.";
      result.replaceChildren(verdict, list);
    } catch (error) {
      result.textContent = words(error);
    }
    button.disabled = false;
  });
}
