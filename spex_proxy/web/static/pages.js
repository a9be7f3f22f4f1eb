// What every page has: copy buttons, filters that apply at once, a list that follows what is being made.

for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(button.previousElementSibling); // no permission: marked, ready to copy
    button.textContent = "press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});

for (const form of document.querySelectorAll("form[data-autosubmit]")) {
  form.classList.add("is-auto");
  for (const field of form.querySelectorAll("select")) field.addEventListener("change", () => form.requestSubmit());
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
  });
}

// Rows that are queued or running are fetched again until they have settled; the others stay as they are.
const LIST_EVERY_MS = 3000;
const rows = document.querySelector("#rows");

async function refresh() {
  const live = rows.querySelectorAll("tr[data-live]");
  if (!live.length) return;
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok) replace(live, new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* the server is away: ask again */ }
  }
  setTimeout(refresh, LIST_EVERY_MS);
}

function replace(live, fresh) {
  const now = new Map([...fresh.querySelectorAll("#rows tr")].map((row) => [row.dataset.id, row]));
  for (const row of live) {
    const next = now.get(row.dataset.id);
    if (!next || next.innerHTML === row.innerHTML) continue;
    const had = row.contains(document.activeElement);
    row.replaceWith(next);
    if (had) next.querySelector("a")?.focus();
  }
}

if (rows) setTimeout(refresh, LIST_EVERY_MS);
