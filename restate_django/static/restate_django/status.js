/*
 * Renews the badges of {% invocation_status %} until their invocations have ended. Without it they are plain text.
 *
 * Where the page offers a stream, one stream tells all of its badges. Else, and when the stream does not come about,
 * each badge asks its address, less and less often while there is no news. Nothing goes on while nobody looks. At the
 * end a badge dispatches "restate:finished". Badges that come into the page later are found as well.
 */
"use strict";
(() => {
    if (window.restateStatus) {
        return;
    }
    window.restateStatus = true;
    const FIRST = 1000;
    const LONGEST = 30000;
    // A browser has six connections to a server, so a page has one stream, and a stream tells of so many rows.
    const MOST_ROWS = 50;
    const watched = new WeakSet();
    let stream = null;
    let streamed = "";
    let streams = "EventSource" in window;

    function show(badge, news) {
        // Only what differs: a screen reader reads out what is written.
        const label = badge.querySelector(".restate-status-label");
        if (label.textContent !== news.label) {
            label.textContent = news.label;
        }
        badge.dataset.status = news.status;
        badge.querySelector(".restate-status-note").hidden = !news.cancel_requested;
        if (news.finished || news.cancel_requested) {
            for (const form of document.querySelectorAll(`form.restate-cancel[data-invocation="${news.id}"]`)) {
                form.hidden = true;
            }
        }
        if (news.finished && "url" in badge.dataset) {
            delete badge.dataset.url;
            badge.dispatchEvent(new CustomEvent("restate:finished", { bubbles: true, detail: news }));
        }
    }

    function watch(badge) {
        if (watched.has(badge) || !badge.dataset.url || streamed.includes(badge.dataset.invocation)) {
            return;
        }
        watched.add(badge);
        let etag = "";
        let pause = FIRST;

        function later() {
            window.setTimeout(look, pause);
        }

        async function ask() {
            const answer = await fetch(badge.dataset.url, {
                cache: "no-store",
                credentials: "same-origin",
                redirect: "error",
                headers: etag ? { Accept: "application/json", "If-None-Match": etag } : { Accept: "application/json" },
            });
            if (answer.ok) {
                const before = badge.dataset.status;
                etag = answer.headers.get("ETag") || "";
                show(badge, await answer.json());
                pause = badge.dataset.status === before ? pause * 1.5 : FIRST;
            } else {
                pause *= 1.5;
            }
            // Nobody may see it any more, or it is gone: what is shown was true.
            return ![401, 403, 404, 410].includes(answer.status);
        }

        async function look() {
            if (!badge.isConnected) {
                watched.delete(badge);
                return;
            }
            if (document.hidden) {
                document.addEventListener("visibilitychange", look, { once: true });
                return;
            }
            if (!("url" in badge.dataset)) {
                return;
            }
            if (streamed.includes(badge.dataset.invocation)) {
                watched.delete(badge);
                return;
            }
            let goesOn = true;
            try {
                goesOn = await ask();
            } catch {
                // The site is not there for a moment.
                pause *= 1.5;
            }
            pause = Math.min(pause, LONGEST);
            if (goesOn) {
                later();
            }
        }

        later();
    }

    function close() {
        if (stream !== null) {
            stream.close();
        }
        stream = null;
        streamed = "";
    }

    function open(address) {
        stream = new EventSource(address);
        const own = stream;
        own.addEventListener("status", (event) => {
            const news = JSON.parse(event.data);
            for (const badge of document.querySelectorAll(`.restate-status[data-invocation="${news.id}"]`)) {
                show(badge, news);
            }
        });
        own.addEventListener("end", close);
        own.addEventListener("error", () => {
            // The browser itself opens one anew that was cut. One that was refused is closed: then badges ask.
            if (own.readyState === EventSource.CLOSED && own === stream) {
                close();
                streams = false;
                watchAll();
            }
        });
    }

    function follow() {
        const rows = new Map();
        let address = "";
        for (const badge of document.querySelectorAll(".restate-status[data-url][data-events]")) {
            if (rows.size < MOST_ROWS) {
                const signature = new URL(badge.dataset.url, document.baseURI).searchParams.get("sig");
                rows.set(badge.dataset.invocation, `${badge.dataset.invocation}.${signature}`);
                address = badge.dataset.events;
            }
        }
        const wanted = new URLSearchParams([...rows.values()].map((row) => ["row", row])).toString();
        if (wanted === streamed || (stream !== null && [...rows.values()].every((row) => streamed.includes(row)))) {
            return;
        }
        close();
        if (wanted !== "") {
            streamed = wanted;
            open(`${address}?${wanted}`);
        }
    }

    function watchAll() {
        if (streams && !document.hidden) {
            follow();
        }
        for (const badge of document.querySelectorAll(".restate-status[data-url]")) {
            watch(badge);
        }
    }

    document.addEventListener("visibilitychange", () => {
        if (document.hidden) {
            close();
        } else {
            watchAll();
        }
    });

    document.addEventListener("submit", async (event) => {
        const form = event.target;
        if (!form.matches("form.restate-cancel") || event.defaultPrevented) {
            return;
        }
        event.preventDefault();
        const button = form.querySelector("button");
        button.disabled = true;
        const body = new FormData(form);
        body.delete("next"); // The answer is to be told here.
        try {
            const answer = await fetch(form.action, { method: "POST", body, redirect: "error" });
            if (!answer.ok && answer.status !== 409) {
                throw new Error("The page's own way says what is wrong.");
            }
            const news = await answer.json();
            for (const badge of document.querySelectorAll(`.restate-status[data-invocation="${news.id}"]`)) {
                show(badge, news);
            }
            button.disabled = false;
            const why = form.querySelector("[role=alert]") || form.appendChild(document.createElement("span"));
            why.className = "restate-status-note";
            why.setAttribute("role", "alert");
            why.textContent = news.reason || "";
        } catch {
            form.submit();
        }
    });

    new MutationObserver(watchAll).observe(document.documentElement, { childList: true, subtree: true });
    watchAll();
})();
