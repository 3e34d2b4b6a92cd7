/*
 * Brings the journal into the page of an invocation: it is read from Restate, and the page does not wait for that. Without
 * it, a link leads to the journal's own page.
 */
"use strict";
(() => {
    const apart = 4000;
    let asked = 0;
    let shown = "";

    async function read() {
        // There is none as long as Restate has not taken the invocation.
        const place = document.getElementById("restate-journal");
        if (!place) {
            return;
        }
        asked = Date.now();
        const answer = await fetch(place.dataset.source, { credentials: "same-origin", redirect: "error" });
        if (!answer.ok) {
            return;
        }
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("restate-journal-body");
        // What the reader has opened is left as it is, and so is the button or link that has the focus.
        const isBusy = place.querySelector("details[open]") || place.contains(document.activeElement);
        if (!fresh || fresh.innerHTML === shown || isBusy) {
            return;
        }
        shown = fresh.innerHTML;
        place.replaceChildren(document.importNode(fresh, true));
    }

    function readQuietly() {
        // The site can't be reached, or asks to log in again: what is there stays.
        read().catch(() => undefined);
    }

    readQuietly();
    document.addEventListener("restate:renewed", (event) => {
        if (event.detail.ended || Date.now() - asked >= apart) {
            readQuietly();
        }
    });
})();
