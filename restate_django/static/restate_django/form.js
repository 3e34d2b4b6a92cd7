/*
 * Gives the forms of a page the tokens back that they had, when the browser goes back to it and has asked for it anew:
 * what was sent before is then found, and not made twice. They are kept with the page's own entry in the history.
 */
"use strict";
(() => {
    if (window.restateForms) {
        return;
    }
    window.restateForms = true;
    const inputs = [...document.querySelectorAll("input[data-restate-key]")];
    const [navigation] = performance.getEntriesByType("navigation");
    const kept = history.state && history.state.restateKeys;
    if (navigation && navigation.type === "back_forward" && Array.isArray(kept) && kept.length === inputs.length) {
        inputs.forEach((input, index) => {
            input.value = kept[index];
        });
    } else {
        const state = history.state && typeof history.state === "object" ? history.state : {};
        history.replaceState({ ...state, restateKeys: inputs.map((input) => input.value) }, "");
    }
})();
