'use strict';
const dialog = document.querySelector('dialog');
const form = dialog.querySelector('form');
const field = form.elements;
let way = '';
for (const button of document.querySelectorAll('button[data-way]')) {
  button.addEventListener('click', () => {
    form.reset();
    way = dialog.dataset.way = button.dataset.way;
    field.snapshot.value = button.dataset.snapshot;
    form.querySelector('h3').textContent = button.dataset.title;
    field.send.textContent = button.dataset.title;
    field.said.value = '';
    dialog.showModal();
  });
}
const asked = () => {
  const named = field.snapshot.value.trim() || null;
  const said = { reason: field.reason.value, by: field.by.value.trim() || null };
  return way === 'promote'
    ? { ...said, snapshot: named, force: field.force.checked }
    : { ...said, to: named, continue_from: field.onward.value };
};
field.leave.addEventListener('click', () => dialog.close());
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  field.send.disabled = true;
  field.said.value = 'Recording…';
  try {
    const answer = await fetch(way, {
      method: 'POST',
      credentials: 'omit',
      redirect: 'error',
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${field.key.value}` },
      body: JSON.stringify(asked()),
    });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    location.reload();
  } catch (failed) {
    field.said.value = failed.message;
  } finally {
    field.send.disabled = false;
  }
});
setInterval(() => { if (!dialog.open) location.reload(); }, 30000);
