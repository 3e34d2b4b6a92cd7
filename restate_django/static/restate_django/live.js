/*
 * Renews the page of an invocation while it is open. Without it, the reader reloads.
 *
 * The page is asked for without the site around it, and each region that has changed is put in place. One that the
 * reader is busy in (a button has the focus, or some of its text is selected) is left until they are not.
 */
"use strict";
(() => {
    const page = document.getElementById("restate-detail");
    if (!page || !("open" in page.dataset)) {
        return;
    }
    const address = new URL(window.location.href);
    address.searchParams.set("_live", "1");
    address.hash = "";
    const begun = Date.now();

    function isBusy(region) {
        const selection = window.getSelection();
        const selected = selection && !selection.isCollapsed && selection.containsNode(region, true);
        return selected || region.contains(document.activeElement);
    }

    function renew(region, fresh) {
        // A form holds a token that differs each time: its key says whether anything else does.
        const same = "key" in region.dataset
            ? region.dataset.key === fresh.dataset.key
            : region.innerHTML === fresh.innerHTML;
        if (same) {
            return true;
        }
        if (isBusy(region)) {
            return false;
        }
        region.replaceWith(document.importNode(fresh, true));
        return true;
    }

    function pause() {
        const age = Date.now() - begun;
        if (document.hidden) {
            return 5000;
        }
        return age < 60000 ? 2000 : age < 600000 ? 5000 : 15000;
    }

    async function look() {
        if (document.hidden) {
            return true;
        }
        const answer = await fetch(address, { credentials: "same-origin", redirect: "error" });
        if (answer.status === 403 || answer.status === 404) {
            return false;
        }
        if (!answer.ok) {
            return true;
        }
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("restate-detail");
        if (!fresh) {
            return false;
        }
        let done = true;
        for (const region of page.querySelectorAll("[data-live]")) {
            const other = fresh.querySelector(`[data-live="${region.dataset.live}"]`);
            if (other) {
                done = renew(region, other) && done;
            }
        }
        const ended = !("open" in fresh.dataset);
        document.dispatchEvent(new CustomEvent("restate:renewed", { detail: { ended } }));
        return !ended || !done;
    }

    async function run() {
        let goesOn = true;
        try {
            goesOn = await look();
        } catch {
            // The site can't be reached, or asks to log in again: the page stays as it is.
        }
        if (goesOn) {
            window.setTimeout(run, pause());
        } else {
            delete page.dataset.open;
        }
    }

    window.setTimeout(run, pause());
})();
