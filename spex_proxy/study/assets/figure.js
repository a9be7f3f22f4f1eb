// Links the text, the bars, the strip and the list of interactions: what is pointed at or focused in one
// of them lights up in all. Without this script everything is still there and readable.

const SVG = "http://www.w3.org/2000/svg";

function start(why) {
  const prompt = why.querySelector(".prompt");
  const segments = new Map([...why.querySelectorAll(".seg[data-n]")].map((node) => [node.dataset.n, node]));
  const overlay = prompt.appendChild(document.createElementNS(SVG, "svg"));
  overlay.setAttribute("class", "overlay");
  overlay.setAttribute("aria-hidden", "true");
  const tip = document.body.appendChild(document.createElement("div"));
  Object.assign(tip, { id: "tip", className: "tip", hidden: true });
  tip.setAttribute("role", "tooltip");

  let told; // the segment that the tip is about

  const parts = (numbers) => numbers.flatMap((n) => [...why.querySelectorAll(`[data-n="${n}"]`)]);

  function light(numbers, rank) {
    dark();
    why.classList.toggle("has-group", rank !== undefined); // one segment alone must not make the text unreadable
    for (const node of parts(numbers)) node.classList.add("lit");
    for (const arc of why.querySelectorAll(`.strip .arc[data-rank="${rank}"]`)) arc.classList.add("lit");
    if (rank !== undefined) join(numbers, why.querySelector(`.pair[data-rank="${rank}"]`));
  }

  function dark() {
    why.classList.remove("has-group");
    for (const node of why.querySelectorAll(".lit")) node.classList.remove("lit");
    overlay.replaceChildren();
    tip.hidden = true;
  }

  // Curves over the text, from the number of one segment to that of the next one.
  function join(numbers, pair) {
    const frame = prompt.getBoundingClientRect();
    const points = numbers.map((n) => {
      const box = (segments.get(n).querySelector(".n") ?? segments.get(n)).getClientRects()[0] ?? segments.get(n).getClientRects()[0];
      return { x: box.left - frame.left + box.width / 2 + prompt.scrollLeft, y: box.top - frame.top + prompt.scrollTop };
    });
    for (let i = 1; i < points.length; i++) {
      const [a, b] = [points[i - 1], points[i]];
      const lift = Math.min(46, 18 + Math.hypot(b.x - a.x, b.y - a.y) / 9);
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", `arc ${pair?.classList.contains("pos") ? "pos" : "neg"}`);
      path.setAttribute("stroke-width", "2.5");
      const stacked = Math.abs(b.x - a.x) < Math.abs(b.y - a.y) / 2; // then around the left, not through the text
      const out = Math.min(a.x, b.x) - 26;
      path.setAttribute("d", stacked
        ? `M${a.x - 5} ${a.y + 5}C${out} ${a.y + 5} ${out} ${b.y + 5} ${b.x - 5} ${b.y + 5}`
        : `M${a.x} ${a.y}C${a.x} ${a.y - lift} ${b.x} ${b.y - lift} ${b.x} ${b.y}`);
      overlay.append(path);
    }
  }

  function explain(segment) {
    if (!segment.dataset.effect) return;
    const strong = document.createElement("strong");
    strong.textContent = `${why.dataset.part ?? "Segment"} ${segment.dataset.n}: ${segment.dataset.effect}`;
    tip.replaceChildren(strong, segment.dataset.reading);
    tip.hidden = false;
    told = segment;
    segment.setAttribute("aria-describedby", "tip");
    place();
  }

  function place() {
    if (tip.hidden) return;
    const box = told.getClientRects()[0];
    const below = box.top < tip.offsetHeight + 16;
    tip.style.left = `${Math.max(12, Math.min(box.left, innerWidth - tip.offsetWidth - 12))}px`;
    tip.style.top = `${below ? box.bottom + 8 : box.top - tip.offsetHeight - 8}px`;
  }

  function of(target) {
    const pair = target.closest(".pair, .arc[data-rank]");
    if (pair) {
      const row = why.querySelector(`.pair[data-rank="${pair.dataset.rank}"]`);
      return { numbers: row.dataset.players.split(" "), rank: pair.dataset.rank };
    }
    const one = target.closest("[data-n]");
    return one && { numbers: [one.dataset.n], segment: target.closest(".seg[data-n]") };
  }

  function show(event) {
    const what = of(event.target);
    if (!what) return dark();
    light(what.numbers, what.rank);
    if (what.segment) explain(what.segment);
  }

  why.addEventListener("pointerover", show);
  why.addEventListener("pointerleave", dark);
  why.addEventListener("focusin", show);
  why.addEventListener("focusout", dark);
  addEventListener("scroll", place, { passive: true, capture: true });

  // One stop for the Tab key; arrows, Home and End go from segment to segment.
  const order = [...segments.values()];
  prompt.addEventListener("keydown", (event) => {
    const at = order.indexOf(event.target);
    if (event.key === "Escape") return dark();
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: order.length - 1 }[event.key];
    if (to === undefined || !order[to]) return;
    event.preventDefault();
    order[at].tabIndex = -1;
    order[to].tabIndex = 0;
    order[to].focus();
  });

  // An arc opens the table of its group.
  why.addEventListener("click", (event) => {
    const arc = event.target.closest(".strip .arc[data-rank]");
    if (!arc) return;
    const details = why.querySelector(`.pair[data-rank="${arc.dataset.rank}"] details`);
    const more = details.closest(".more");
    if (more) more.open = true;
    details.open = true;
    details.scrollIntoView({ block: "nearest" });
    details.querySelector("summary").focus({ preventScroll: true });
  });
}

for (const why of document.querySelectorAll(".why:not(.is-plain)")) start(why);
