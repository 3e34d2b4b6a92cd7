/*
 * Brings in the parts of a page that come from Restate: the page does not wait for them. Without it, links lead to them.
 */
"use strict";
for (const place of document.querySelectorAll("[data-source][data-part]")) {
    fetch(place.dataset.source, { credentials: "same-origin", redirect: "error" })
        .then((answer) => (answer.ok ? answer.text() : ""))
        .then((text) => {
            const part = new DOMParser().parseFromString(text, "text/html").getElementById(place.dataset.part);
            if (part) {
                place.replaceChildren(document.importNode(part, true));
            }
        })
        .catch(() => undefined); // The link stays.
}
