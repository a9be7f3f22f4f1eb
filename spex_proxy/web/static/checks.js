// What a person can check: the table of any segments, its missing lines, and the model asked again without them.

import { ask, follow, inWords, me, words } from "./api.js";

const MOST = 4;
const why = document.querySelector("[data-table-url]:not(.is-plain)");
const again = document.querySelector(".retests[data-explanation]");
const explanation = why?.dataset.tableUrl.split("/").at(-2);

function element(tag, values, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}

async function fragment(url, selector) {
  const answer = await fetch(url).catch(() => null);
  return answer?.ok ? new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(selector) : null;
}

// ---- buttons under a table ----

function equip(table) {
  const { players, missing } = table.dataset;
  if (!players || table.querySelector(".tools")) return;
  const said = element("span", { className: "said" });
  said.setAttribute("role", "status");
  const tools = element("div", { className: "tools buttons" });
  if (Number(missing)) {
    const words_ = missing === "1" ? "Ask the missing one" : `Ask the ${missing} missing ones`;
    const button = element("button", { type: "button", className: "button", textContent: words_ });
    button.addEventListener("click", () => measure(table, button, said));
    tools.append(button);
  }
  if (again) {
    const button = element("button", { type: "button", className: "button", textContent: "Re-test without these" });
    button.addEventListener("click", () => retest(players, said, button));
    tools.append(button);
  }
  tools.append(said);
  table.append(tools);
}

async function measure(table, button, said) {
  button.disabled = true;
  const segments = table.dataset.players.split(",").map(Number);
  try {
    said.textContent = "Asking…";
    const asked = await ask(`/explanations/${explanation}/coalitions`, { segments });
    if (asked.job && asked.measured < asked.lines.length) {
      const job = await follow(asked.job.id, (now) => { said.textContent = inWords(now); });
      if (job.state !== "done") throw new Error(`The model could not be asked: ${job.reason ?? job.state}. You can ask again.`);
    }
    const fresh = await fragment(`${why.dataset.tableUrl}?players=${table.dataset.players}`, ".coalitions");
    if (!fresh) throw new Error("The table can’t be shown now.");
    table.replaceWith(fresh);
    equip(fresh);
    const done = fresh.querySelector(".said");
    if (done) done.textContent = "Every line is measured now.";
  } catch (error) {
    said.textContent = words(error);
    button.disabled = false;
  }
}

// ---- asked again ----

async function retest(segments, said, button) {
  const numbers = [...new Set(String(segments).split(/[ ,]+/).filter(Boolean).map(Number))];
  try {
    const wish = { who: me(), ...(numbers.length ? { segments: numbers } : { top: 1 }) };
    if (button) button.disabled = true;
    said.textContent = "Asking…";
    const asked = await ask(`/explanations/${explanation}/retest`, wish);
    await cards(asked.id);
    const job = await follow(asked.job_id, (now) => { said.textContent = inWords(now); });
    await cards(asked.id);
    said.textContent = job.state === "done" ? "" : `The model could not be asked: ${job.reason ?? job.state}. You can ask again.`;
    again.querySelector(`[data-retest="${asked.id}"]`)?.scrollIntoView({ block: "nearest" });
  } catch (error) {
    said.textContent = words(error);
  }
  if (button) button.disabled = false;
}

async function cards() {
  const fresh = await fragment(`/spex/explanations/${explanation}/retests`, "#retests");
  if (fresh) document.querySelector("#retests").replaceWith(fresh);
}

const form = again?.querySelector(".retest-form");
if (form) {
  form.hidden = false;
  const said = form.querySelector(".said");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    retest(form.elements.segments.value, said, form.querySelector("button"));
  });
  for (const card of again.querySelectorAll("[data-live]")) follow(card.dataset.job, () => {}).then(() => cards());
}

// ---- the table of segments that a person chooses: click or Enter on up to four of them ----

if (why) {
  for (const table of why.querySelectorAll(".coalitions")) equip(table);
  const place = why.querySelector(".together");
  const box = element("div", { className: "chooser", hidden: true });
  box.setAttribute("role", "status");
  const hint = "For any other group: click up to four segments in the prompt, or press Enter on them.";
  place.append(box, element("p", { className: "hint", textContent: hint }));
  let chosen = [];
  const numbers = () => [...chosen].sort((a, b) => a - b);

  async function toggle(segment) {
    const n = segment.dataset.n;
    chosen = chosen.includes(n) ? chosen.filter((other) => other !== n) : [...chosen, n].slice(-MOST);
    for (const other of why.querySelectorAll(".seg[data-n]")) other.classList.toggle("chosen", chosen.includes(other.dataset.n));
    if (form) form.elements.segments.value = numbers().join(", ");
    box.hidden = !chosen.length;
    if (!chosen.length) return;
    const asked = numbers().join(",");
    const table = await fragment(`${why.dataset.tableUrl}?players=${asked}`, ".coalitions");
    if (asked !== numbers().join(",")) return;
    const title = `Your choice: ${chosen.length > 1 ? "segments" : "segment"} ${numbers().join(", ")}`;
    box.replaceChildren(element("h3", { textContent: title }), table || "The table can’t be shown now.");
    if (table) equip(table);
  }

  why.addEventListener("click", (event) => {
    const segment = event.target.closest(".prompt .seg[data-n]");
    if (segment && getSelection().isCollapsed) toggle(segment);
  });
  why.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && event.target.matches(".prompt .seg[data-n]")) {
      event.preventDefault();
      toggle(event.target);
    }
  });
}
