// Keeps the live part of a page up to date, and makes one click of two. Every page works without it.
"use strict";

for (const part of document.querySelectorAll("[data-live]")) {
  let shown = null;
  let waiting = null;

  async function look() {
    waiting = null;
    let open = true;
    try {
      const answer = await fetch(part.dataset.live, { headers: { Accept: "application/json" } });
      if (answer.ok) {
        const news = await answer.json();
        open = news.open;
        if (news.html !== shown) {
          const focused = document.activeElement && document.activeElement.getAttribute("formaction");
          part.innerHTML = shown = news.html;
          // A button that is still there keeps the keyboard's focus.
          if (focused) {
            for (const button of part.querySelectorAll("[formaction]")) {
              if (button.getAttribute("formaction") === focused) button.focus();
            }
          }
        }
      }
    } catch {
      // The site is not there for a moment: ask again.
    }
    part.dataset.open = String(open);
    if (open) later();
  }

  function later() {
    if (waiting === null && !document.hidden) waiting = setTimeout(look, 1000);
  }

  part.addEventListener("look-again", look);
  document.addEventListener("visibilitychange", () => {
    if (part.dataset.open === "true") later();
  });
  if (part.dataset.open === "true") later();
}

// A second click while the first is under way sends nothing. The server would find the same order all the same.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

// The agent is asked without leaving the page.
for (const form of document.querySelectorAll("form[data-ask]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        headers: { Accept: "application/json" },
        body: new FormData(form),
      });
      const said = await answer.json();
      if (!said.ok) throw new Error("The question was not taken.");
      form.reset();
      for (const part of document.querySelectorAll("[data-live]")) part.dispatchEvent(new Event("look-again"));
    } catch {
      // The page's own way says what is wrong.
      form.submit();
    } finally {
      delete form.dataset.sent;
    }
  });
}
