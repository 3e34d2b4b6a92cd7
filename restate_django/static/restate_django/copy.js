/*
 * Lets the buttons copy that stand beside payloads, failures and ids. Without it, or on a site that the browser does not
 * take for a safe one, they are not shown, and the text is selected by hand.
 */
"use strict";
(() => {
    if (!navigator.clipboard) {
        return;
    }
    document.documentElement.classList.add("restate-copies");
    document.addEventListener("click", async (event) => {
        const button = event.target instanceof Element && event.target.closest(".restate-copy");
        const text = button && button.closest(".restate-copyable").querySelector("pre, code");
        if (!text) {
            return;
        }
        try {
            await navigator.clipboard.writeText(text.textContent);
        } catch {
            // The browser does not allow it: what is selected can be copied by the keyboard.
            window.getSelection().selectAllChildren(text);
            return;
        }
        const label = button.textContent;
        if (label !== button.dataset.done) {
            button.textContent = button.dataset.done;
            window.setTimeout(() => {
                button.textContent = label;
            }, 1500);
        }
    });
})();
